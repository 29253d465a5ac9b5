"""The files of a release: the model, what serves it, and what it must answer there."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from lrf_core.artifacts import MODEL_FILE
from lrf_core.errors import ArtifactError, SpecError
from lrf_core.export import export_model, random_samples
from lrf_core.export.interface import as_called, by_output_name, in_structure, samples_by_name
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.releases.answers import ANSWERED_SAMPLES, ANSWERS_FILE, SampleAnswers
from lrf_core.releases.layout import SAVED_MODEL

LITERT_FILE = "model.tflite"
ONNX_FILE = "model.onnx"

# TensorFlow Serving serves the folder with the highest number.
_SERVED = f"{SAVED_MODEL}/1"
_SEED = 0


def model_files(
    model: keras.Model, folder: Path, *, litert: bool = True, onnx: bool = False
) -> dict[str, Path]:
    """Write the model in every format, and its answers; returns path in the release to file.

    All of it is made from `model.keras` as it was stored and loaded again.

    Args:
        folder: to write to, below the paths in the release.
        litert, onnx: whether to convert to these as well.

    Raises:
        ArtifactError: the model is another one once it was stored and loaded.
        ExportError: it cannot be converted, or answers otherwise then.
    """
    stored = _save_timeless(model, folder)
    loaded = load_model(stored, sandbox=False)  # written by this process
    if model_digest(loaded) != model_digest(model):
        raise ArtifactError(
            f"model '{model.name}' is not the one that was judged once it is stored; its layers do "
            "not survive saving and loading"
        )
    samples = random_samples(loaded, ANSWERED_SAMPLES, _SEED)
    export_model(loaded, "saved-model", folder / _SERVED, samples=samples)
    if litert:
        export_model(loaded, "litert", folder / LITERT_FILE, samples=samples)
    if onnx:
        export_model(loaded, "onnx", folder / ONNX_FILE, samples=samples)
    recorded_answers(loaded).save(folder / ANSWERS_FILE)
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def recorded_answers(model: keras.Model) -> SampleAnswers:
    """What a model answers on samples drawn by a fixed seed, see `export.random_samples`."""
    named = samples_by_name(model, random_samples(model, ANSWERED_SAMPLES, _SEED))
    answers = model.predict_on_batch(as_called(model, in_structure(model, named)))
    outputs = {name: np.asarray(values) for name, values in by_output_name(answers).items()}
    return SampleAnswers(named, {name: _portable(values) for name, values in outputs.items()})


def check_onnx_installed() -> None:
    """Raise SpecError unless models can be converted to ONNX and run there."""
    missing = [
        name for name in ("onnx", "tf2onnx", "onnxruntime") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise SpecError(
            f"publish.onnx needs the extra 'onnx' ({', '.join(missing)} missing); install "
            "lrf[onnx], or set publish.onnx to false"
        )


def _portable(values: np.ndarray) -> np.ndarray:
    """In a dtype that NumPy has of its own: bfloat16 is none."""
    return values if values.dtype.isbuiltin == 1 else values.astype(np.float32)


def _save_timeless(model: keras.Model, folder: Path) -> Path:
    """Write `model.keras` so that the same content gives the same bytes."""
    saved = save_model(model, folder / "saved.keras")
    target = folder / MODEL_FILE
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w") as copy:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                metadata.pop("date_saved", None)
                content = json.dumps(metadata, sort_keys=True).encode()
            copy.writestr(zipfile.ZipInfo(name), content)
    saved.unlink()
    return target
