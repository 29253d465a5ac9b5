"""validate: judge candidates against their baseline; what is not measured does not pass."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import Evidence, Lineage, ModelMeasures, Verdict
from lrf_core.console.progress import track
from lrf_core.data import Data, Split
from lrf_core.data.check import expected_by
from lrf_core.errors import ModelError
from lrf_core.gate.checks import checks_of
from lrf_core.gate.classes import class_titles, class_warnings
from lrf_core.gate.comparison import Comparison, compare, each_confidence
from lrf_core.gate.metric import Metric, metric_of
from lrf_core.gate.overlap import overlap
from lrf_core.gate.samples import check_baseline, with_checked_labels
from lrf_core.gate.served import (
    Exported,
    digest_after_loading,
    exported,
    exported_answers,
    keras_latencies,
    litert_latencies,
)
from lrf_core.measurement.measure import is_right, predict, share_right
from lrf_core.measurement.timing import Latency
from lrf_core.models.cost import model_cost
from lrf_core.models.load import model_digest, weight_bytes
from lrf_core.models.structure import Samples, sample_shape
from lrf_core.models.unroll import to_functional
from lrf_core.spec import GateSpec

_logger = logging.getLogger("lrf")

Array = npt.NDArray[Any]


def validate(
    baseline: keras.Model, candidate: keras.Model, data: Data, *, gate: GateSpec, seed: int = 0
) -> Verdict:
    """Judge a candidate by the limits of a gate, on the test samples.

    Both models answer the same samples. A limit that is not set is not judged, except for the
    drop of the metric: without that limit nothing passes. The drop is judged by what it does not
    exceed with `gate.confidence`, so that few samples fail. What cannot be measured is a failed
    check.

    Args:
        baseline: the original model.
        candidate: the compressed model.
        data: only its test part is used.
        gate: the limits that count, `Spec.effective_gate()` for a whole spec.
        seed: of the samples drawn (`gate.max_samples`) and of the bootstrap.

    Returns:
        The verdict, passed or not. A candidate that answers NaN, answers in another shape or
        cannot be exported gets one too.

    Raises:
        DataError: there are no test samples, they have no labels, labels that do not fit the model
            or of one class only, or the baseline is no better than guessing on them.
        ModelError: the models take samples of different shapes, or the baseline is no classifier.
        SpecError: there is no such metric, or it fails.
    """
    (verdict,) = validate_all(baseline, (candidate,), data, gate=gate, seed=seed)
    return verdict


def validate_all(
    baseline: keras.Model,
    candidates: Sequence[keras.Model],
    data: Data,
    *,
    gate: GateSpec,
    seed: int = 0,
) -> tuple[Verdict, ...]:
    """Judge several candidates on the same samples, as `validate` judges one.

    The baseline answers, is converted and is measured once; all models are timed in turns. Each is
    judged at 1 - (1 - confidence) / candidates (Bonferroni), so that `gate.confidence` holds for
    whichever is chosen.

    Args:
        baseline: the original model.
        candidates: the compressed models.
        data: only its test part is used.
        gate: the limits that count, `Spec.effective_gate()` for a whole spec.
        seed: of the samples drawn (`gate.max_samples`) and of the bootstrap.

    Returns:
        A verdict for each candidate, in order.

    Raises:
        ModelError: no candidate, or as `validate` does.
        DataError, SpecError: as `validate` does.
    """
    baseline = to_functional(baseline)
    if not candidates:
        raise ModelError("there is no candidate to judge; give at least one")
    for candidate in candidates:
        _check_inputs(baseline, candidate)
    test = with_checked_labels(data.test, baseline)
    split = test if gate.max_samples is None else test.sample(gate.max_samples, seed)
    split = with_checked_labels(split, baseline)
    metric = metric_of(gate, expected_by(baseline).classes)
    before = predict(baseline, split, description="Baseline on test data")
    check_baseline(before, split)
    trial = _Trial(baseline, before, split, data, metric, gate, seed, len(candidates))
    subjects = _measured(trial, candidates)
    warnings = _warnings(trial)
    return tuple(_judged(trial, subjects[0], subject, warnings) for subject in subjects[1:])


def smallest_passing(verdicts: Sequence[Verdict]) -> int | None:
    """Index of the smallest candidate that passed; None if none did.

    The smallest has the fewest parameters; of equal ones the fewest MACs, then the fewest weight
    bytes, then the lowest index.

    Args:
        verdicts: one for each candidate.
    """

    def size(index: int) -> tuple[int, int, int, int]:
        found = verdicts[index].candidate
        return found.cost.params, found.cost.macs, found.weight_bytes, index

    passing = [index for index, verdict in enumerate(verdicts) if verdict.passed]
    return min(passing, key=size, default=None)


@dataclass(frozen=True)
class _Trial:
    """What all candidates are judged by.

    Attributes:
        before: the baseline's answers `(count, classes)`.
        candidates: how many there are.
    """

    baseline: keras.Model
    before: Array
    split: Split
    data: Data
    metric: Metric
    gate: GateSpec
    seed: int
    candidates: int

    @property
    def labels(self) -> Array:
        """Class ids `(count,)`."""
        return np.asarray(self.split.labels)


@dataclass(frozen=True)
class _Subject:
    """A model and what was measured of it.

    Attributes:
        answers: `(count, classes)`; None if their shape is not the baseline's.
    """

    model: keras.Model
    answers: Array | None
    export: Exported
    measures: ModelMeasures


def _measured(trial: _Trial, candidates: Sequence[keras.Model]) -> list[_Subject]:
    """Baseline and candidates, all timed in turns on the first sample."""
    split, models = trial.split, (trial.baseline, *candidates)
    answers = [trial.before, *(_answers(trial, candidate) for candidate in candidates)]
    exports = [exported(model, split) for model in track(models, "Converting to LiteRT")]
    sample, repeats = split.read(np.array([0])), trial.gate.latency_repeats
    in_keras = keras_latencies(models, sample, repeats)
    in_litert = litert_latencies(exports, sample, repeats)
    return [
        _Subject(
            model, answer, export, _measures(model, answer, split, sample, keras_ms, litert_ms)
        )
        for model, answer, export, keras_ms, litert_ms in zip(
            models, answers, exports, in_keras, in_litert, strict=True
        )
    ]


def _answers(trial: _Trial, candidate: keras.Model) -> Array | None:
    if candidate.output_shape != trial.baseline.output_shape:
        return None
    return predict(candidate, trial.split, description="Candidate on test data")


def _measures(
    model: keras.Model,
    answers: Array | None,
    split: Split,
    sample: Samples,
    in_keras: Latency,
    in_litert: Latency | None,
) -> ModelMeasures:
    accuracy = None
    if answers is not None and np.isfinite(answers).all():
        accuracy = share_right(is_right(answers, split))
    return ModelMeasures(
        cost=model_cost(model, sample_shape(sample)),
        weight_bytes=weight_bytes(model),
        accuracy=accuracy,
        samples=split.count,
        keras_latency_ms=in_keras.median_ms,
        keras_latency_p95_ms=in_keras.p95_ms,
        litert_latency_ms=in_litert.median_ms if in_litert else None,
        litert_latency_p95_ms=in_litert.p95_ms if in_litert else None,
    )


def _judged(
    trial: _Trial, baseline: _Subject, candidate: _Subject, warnings: tuple[str, ...]
) -> Verdict:
    compared, gate = _compared(trial, candidate), trial.gate
    baseline_digest, digest = model_digest(baseline.model), model_digest(candidate.model)
    evidence = _evidence(trial, baseline, candidate)
    measured = Verdict(
        lineage=Lineage(
            inputs={"baseline": baseline_digest, "candidate": digest, "data": trial.data.digest},
            settings={
                "gate": gate.model_dump(mode="json"),
                "seed": trial.seed,
                "candidates": trial.candidates,
            },
            parent=digest,
        ),
        passed=False,
        baseline_digest=baseline_digest,
        candidate_digest=digest,
        checks=(),
        baseline=baseline.measures,
        candidate=candidate.measures,
        warnings=warnings,
        evidence=evidence,
    )
    if compared:
        measured = _with_comparison(measured, compared, trial)
    checks = checks_of(measured, evidence, gate, trial.candidates)
    passed = all(check.passed for check in checks)
    return measured.model_copy(update={"checks": checks, "passed": passed})


def _evidence(trial: _Trial, baseline: _Subject, candidate: _Subject) -> Evidence:
    answers = candidate.answers
    exported, not_exported = exported_answers(answers, candidate.export, trial.split)
    reloaded, not_reloaded = digest_after_loading(candidate.model)
    problems = {
        "litert_latency_ratio": baseline.export.reason or candidate.export.reason,
        "litert_same_answers": not_exported,
        "digest_unchanged": not_reloaded,
    }
    return Evidence(
        output_shapes=(baseline.model.output_shape, candidate.model.output_shape),
        not_finite=None if answers is None else int(np.sum(~np.isfinite(answers).all(axis=-1))),
        exported=exported,
        reloaded_digest=reloaded,
        problems={name: problem for name, problem in problems.items() if problem},
    )


def _compared(trial: _Trial, candidate: _Subject) -> Comparison | None:
    if candidate.answers is None or not np.isfinite(candidate.answers).all():
        return None
    return compare(
        trial.before,
        candidate.answers,
        trial.labels,
        metric=trial.metric,
        class_names=trial.data.class_names,
        seed=trial.seed,
    )


def _with_comparison(verdict: Verdict, compared: Comparison, trial: _Trial) -> Verdict:
    confidence = trial.gate.confidence
    each = None if confidence is None else each_confidence(confidence, trial.candidates)
    return verdict.model_copy(
        update={
            "accuracy_drop": compared.accuracy.drop,
            "drop_interval": compared.accuracy.interval,
            "agreement": compared.agreement,
            "metrics": tuple(found.change(trial.seed, each) for found in compared.metrics()),
            "classes": compared.classes,
            "calibration_error": compared.calibration_error,
            "confusion": compared.confusion,
        }
    )


def _warnings(trial: _Trial) -> tuple[str, ...]:
    """What a user should know before trusting the numbers, also in the log."""
    titles = class_titles(trial.data.class_names, trial.before.shape[-1])
    known = overlap(trial.split, trial.data.train, trial.seed).warning()
    warnings = (*filter(None, (known,)), *class_warnings(trial.labels, titles))
    for warning in warnings:
        _logger.warning("%s", warning)
    return warnings


def _check_inputs(baseline: keras.Model, candidate: keras.Model) -> None:
    if candidate.input_shape != baseline.input_shape:
        raise ModelError(
            f"the candidate takes samples of shape {candidate.input_shape}, the baseline of shape "
            f"{baseline.input_shape}; validate a model that was made from this baseline"
        )
