"""Models as they are served: exported to LiteRT, timed in turns, saved and loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import ExportedAnswers
from lrf_core.data import Split
from lrf_core.errors import ExportError, LrfError
from lrf_core.files.scratch import scratch_folder
from lrf_core.measurement.served import ServedModel
from lrf_core.measurement.timing import Latency, Run, keras_run, latency_in_turns, litert_run
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.models.structure import Samples

Array = npt.NDArray[Any]

# Samples on which the exported file must answer as the model does.
EXPORT_SAMPLES = 64
# How closely it must, as a share of the largest answer. Float32 arithmetic in another order stays a
# hundred times below it; a wrongly converted layer does not.
EXPORT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """A model as LiteRT runs it, or the reason why it does not."""

    model: ServedModel | None
    reason: str = ""


def exported(model: keras.Model, split: Split) -> Exported:
    """The model converted to LiteRT and run once."""
    try:
        served = ServedModel(model)
        served.predict(split.read(np.array([0])))  # some operations are refused only when run
        return Exported(served)
    except ExportError as error:
        return Exported(None, str(error))


def keras_latencies(
    models: Sequence[keras.Model], sample: Samples, repeats: int
) -> tuple[Latency, ...]:
    """Latency of each for one sample `(1, *input_shape)`, all timed in turns."""
    return tuple(latency_in_turns([keras_run(model, sample) for model in models], repeats))


def litert_latencies(
    exports: Sequence[Exported], sample: Samples, repeats: int
) -> tuple[Latency | None, ...]:
    """The same in LiteRT; None for what LiteRT does not run."""
    runs: dict[int, Run] = {
        i: litert_run(export.model, sample) for i, export in enumerate(exports) if export.model
    }
    timed = latency_in_turns(list(runs.values()), repeats) if runs else []
    found = dict(zip(runs, timed, strict=True))
    return tuple(found.get(i) for i in range(len(exports)))


def exported_answers(
    answers: Array | None, export: Exported, split: Split
) -> tuple[ExportedAnswers | None, str]:
    """How a model's export answers on the first samples, or why that cannot be compared.

    Args:
        answers: of the model to all samples, `(count, classes)`; None if they have another shape
            than the baseline's.
    """
    if answers is None:
        return None, "the answers have another shape than the baseline's"
    if export.model is None:
        return None, export.reason
    samples = split.read(np.arange(min(EXPORT_SAMPLES, split.count)))
    try:
        found = export.model.predict(samples)
    except ExportError as error:
        return None, str(error)
    judged = answers[:EXPORT_SAMPLES]
    if judged.shape != found.shape:
        return None, f"LiteRT answers with shape {found.shape}"
    if not (np.isfinite(judged).all() and np.isfinite(found).all()):
        return None, "the answers are not finite"
    return compared_answers(judged, found), ""


def compared_answers(judged: Array, found: Array) -> ExportedAnswers:
    """How far apart the finite answers `(n, classes)` of a model and of its export are.

    A class may be another one where the lead over the second class is at most EXPORT_TOLERANCE
    times the largest answer.
    """
    scale = float(np.abs(judged).max()) or 1.0
    runner_up, best = np.sort(judged, axis=-1)[:, -2:].T
    decided = best - runner_up > EXPORT_TOLERANCE * scale
    return ExportedAnswers(
        samples=len(judged),
        apart=float(np.abs(judged - found).max()) / scale,
        other_class=int(np.sum(decided & (judged.argmax(axis=-1) != found.argmax(axis=-1)))),
    )


def digest_after_loading(model: keras.Model) -> tuple[str | None, str]:
    """Digest of the model saved and loaded in safe mode, or why that fails."""
    with scratch_folder("validate") as folder:
        try:
            return model_digest(load_model(save_model(model, folder), sandbox=False)), ""
        except LrfError as error:
            return None, str(error).replace(str(folder), "the saved file")
        except (TypeError, ValueError, NotImplementedError) as error:
            return None, f"the model cannot be saved: {' '.join(str(error).split())[:200]}"
