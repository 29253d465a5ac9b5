"""Models as they are served: exported to LiteRT, timed in turns, saved and loaded again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.data import Split
from lrf_core.errors import ExportError, LrfError
from lrf_core.models.latency import Latency, Run, keras_run, latency_in_turns, litert_run
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.models.served import ServedModel
from lrf_core.structure import Samples

Array = npt.NDArray[Any]

# Samples on which the exported file must answer as the model does.
EXPORT_SAMPLES = 64


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


def answers_to_compare(
    answers: Array | None, export: Exported, split: Split
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


def digest_after_loading(model: keras.Model) -> tuple[str | None, str]:
    """Digest of the model saved and loaded in safe mode, or why that fails."""
    with tempfile.TemporaryDirectory(prefix="lrf-validate-") as folder:
        try:
            return model_digest(load_model(save_model(model, Path(folder)), sandbox=False)), ""
        except LrfError as error:
            return None, str(error).replace(folder, "the saved file")
        except (TypeError, ValueError, NotImplementedError) as error:
            return None, f"the model cannot be saved: {' '.join(str(error).split())[:200]}"
