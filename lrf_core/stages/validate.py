"""validate: judge a candidate against its baseline; what is not measured does not pass."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import Lineage, ModelMeasures, Verdict
from lrf_core.data import Data, Split
from lrf_core.errors import DataError, ExportError, LrfError, ModelError
from lrf_core.models.compare import compare
from lrf_core.models.cost import model_cost
from lrf_core.models.latency import compare_latency, keras_run, litert_run, time_latency
from lrf_core.models.load import load_model, model_digest, save_model, weight_bytes
from lrf_core.models.measure import is_right, predict, share_right
from lrf_core.models.served import ServedModel
from lrf_core.models.unroll import as_graph
from lrf_core.progress import track
from lrf_core.spec import GateSpec
from lrf_core.stages import checks
from lrf_core.structure import Samples, sample_shape

Array = npt.NDArray[Any]

# Samples on which the exported file must answer as the model does.
EXPORT_SAMPLES = 64
# Standard errors by which a baseline must beat guessing to be worth comparing with.
_ABOVE_CHANCE = 2.0


def validate(
    baseline: keras.Model, candidate: keras.Model, data: Data, *, gate: GateSpec, seed: int = 0
) -> Verdict:
    """Judge a candidate by the limits of a gate, on the test samples.

    Both models answer the same samples. A limit that is not set is not judged, except for the
    accuracy drop: without that limit nothing passes. What cannot be measured is a failed check.

    Args:
        gate: the limits that count, `Spec.effective_gate()` for a whole spec.
        seed: of the samples drawn (`gate.max_samples`) and of the bootstrap.

    Returns:
        The verdict, passed or not. A candidate that answers NaN, answers in another shape or
        cannot be exported gets one too.

    Raises:
        DataError: the samples have no labels, or the baseline is no better than guessing on them.
        ModelError: the models take samples of different shapes.
    """
    baseline = as_graph(baseline)
    _check_inputs(baseline, candidate)
    split = data.test if gate.max_samples is None else data.test.sample(gate.max_samples, seed)
    before = predict(baseline, split, description="Baseline on test data")
    _check_baseline(before, split)
    comparable = candidate.output_shape == baseline.output_shape
    after = predict(candidate, split, description="Candidate on test data") if comparable else None
    finite = after is not None and bool(np.isfinite(after).all())
    compared = compare(before, after, split, seed) if after is not None and finite else None
    exports = tuple(
        _export(model, split) for model in track((baseline, candidate), "Converting to LiteRT")
    )
    measures = _measure_pair(
        (baseline, candidate), (before, after if finite else None), exports, split, gate
    )
    digest = model_digest(candidate)
    verdicts = (
        checks.same_output_shape(baseline.output_shape, candidate.output_shape),
        checks.finite_outputs(after),
        checks.accuracy_drop(compared, gate),
        *checks.size_checks(*measures, gate),
        *checks.latency_checks(*measures, gate, exports[0].reason or exports[1].reason),
        checks.litert_same_answers(*_answers_to_compare(after, exports[1], split)),
        checks.digest_unchanged(digest, *_digest_after_loading(candidate)),
    )
    baseline_digest = model_digest(baseline)
    return Verdict(
        lineage=Lineage(
            inputs={"baseline": baseline_digest, "candidate": digest, "data": data.digest},
            settings={"gate": gate.model_dump(mode="json"), "seed": seed},
            parent=digest,
        ),
        passed=all(check.passed for check in verdicts),
        baseline_digest=baseline_digest,
        candidate_digest=digest,
        checks=verdicts,
        baseline=measures[0],
        candidate=measures[1],
        accuracy_drop=compared.drop if compared else None,
        drop_interval=compared.interval if compared else None,
        agreement=compared.agreement if compared else None,
    )


@dataclass(frozen=True)
class _Export:
    """A model as LiteRT runs it, or the reason why it does not."""

    model: ServedModel | None
    reason: str = ""


def _export(model: keras.Model, split: Split) -> _Export:
    try:
        exported = ServedModel(model)
        exported.predict(split.read(np.array([0])))  # some operations are refused only when run
        return _Export(exported)
    except ExportError as error:
        return _Export(None, str(error))


def _check_inputs(baseline: keras.Model, candidate: keras.Model) -> None:
    if candidate.input_shape != baseline.input_shape:
        raise ModelError(
            f"the candidate takes samples of shape {candidate.input_shape}, the baseline of shape "
            f"{baseline.input_shape}; validate a model that was made from this baseline"
        )


def _check_baseline(answers: Array, split: Split) -> None:
    """Raise DataError when a drop from this baseline would mean nothing."""
    if not np.isfinite(answers).all():
        raise DataError(
            "the baseline answers NaN or infinite values on the test data; check how the samples "
            "are scaled, or give a sound baseline"
        )
    accuracy, classes = share_right(is_right(answers, split)), answers.shape[-1]
    chance = 1.0 / classes
    error = math.sqrt(chance * (1.0 - chance) / split.count)
    if accuracy <= 100.0 * (chance + _ABOVE_CHANCE * error):
        raise DataError(
            f"the baseline gets {accuracy:.1f}% of {split.count:,} test samples right, no better "
            f"than guessing among {classes} classes ({100.0 * chance:.1f}%): the baseline is "
            "broken, its samples were scaled otherwise in training, or the labels are in another "
            "order"
        )


def _measure_pair(
    models: tuple[keras.Model, keras.Model],
    answers: tuple[Array, Array | None],
    exports: tuple[_Export, ...],
    split: Split,
    gate: GateSpec,
) -> tuple[ModelMeasures, ModelMeasures]:
    """Measures of baseline and candidate, timed in turns on the first sample."""
    sample = split.read(np.array([0]))
    repeats = gate.latency_repeats
    in_keras = compare_latency(keras_run(models[0], sample), keras_run(models[1], sample), repeats)
    in_litert = _litert_latency_ms(exports, sample, repeats)
    baseline, candidate = (
        ModelMeasures(
            cost=model_cost(model, sample_shape(sample)),
            weight_bytes=weight_bytes(model),
            accuracy=None if answer is None else share_right(is_right(answer, split)),
            samples=split.count,
            keras_latency_ms=latency.median_ms,
            litert_latency_ms=litert_ms,
        )
        for model, answer, latency, litert_ms in zip(
            models, answers, in_keras, in_litert, strict=True
        )
    )
    return baseline, candidate


def _litert_latency_ms(
    exports: tuple[_Export, ...], sample: Samples, repeats: int
) -> tuple[float | None, ...]:
    runs = [litert_run(export.model, sample) if export.model else None for export in exports]
    if runs[0] and runs[1]:
        return tuple(latency.median_ms for latency in compare_latency(runs[0], runs[1], repeats))
    return tuple(time_latency(run, repeats).median_ms if run else None for run in runs)


def _answers_to_compare(
    answers: Array | None, export: _Export, split: Split
) -> tuple[Array | None, Array | None, str]:
    """Answers of the model and of its export on the first samples, or why there are none."""
    if answers is None:
        return None, None, "the answers have another shape than the baseline's"
    if export.model is None:
        return None, None, export.reason
    samples = split.read(np.arange(min(EXPORT_SAMPLES, split.count)))
    try:
        return answers[:EXPORT_SAMPLES], export.model.predict(samples), ""
    except ExportError as error:
        return None, None, str(error)


def _digest_after_loading(model: keras.Model) -> tuple[str | None, str]:
    """Digest of the model saved and loaded in safe mode, or why that fails."""
    with tempfile.TemporaryDirectory(prefix="lrf-validate-") as folder:
        try:
            return model_digest(load_model(save_model(model, Path(folder)))), ""
        except LrfError as error:
            return None, str(error).replace(folder, "the saved file")
        except (TypeError, ValueError, NotImplementedError) as error:
            return None, f"the model cannot be saved: {' '.join(str(error).split())[:200]}"
