"""The formats by name: write a file whole or not at all, check that it answers, open it again."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import keras

from lrf_core.errors import ExportError, SpecError
from lrf_core.export.compare import Closeness, closeness
from lrf_core.export.litert import (
    LitertModel,
    to_litert,
    to_litert_dynamic,
    to_litert_float16,
    to_litert_int8,
)
from lrf_core.export.onnx import OnnxModel, to_onnx
from lrf_core.export.runtime import ExportedModel
from lrf_core.export.saved_model import SavedModel, to_saved_model, write_folder_atomically_with
from lrf_core.files.atomic import write_atomically_with
from lrf_core.models.structure import Samples

_SAVED_MODEL = "saved-model"
_INT8 = "litert-int8"
_CONVERTERS: dict[str, Callable[[keras.Model], bytes]] = {
    "litert": to_litert,
    "litert-float16": to_litert_float16,
    "litert-dynamic": to_litert_dynamic,
    "onnx": to_onnx,
}
_QUANTIZED = (_INT8, "litert-dynamic")
# An export this far from its model, as a share of the largest answer, answers otherwise: a model
# that computes in bfloat16 is within 0.02 of its float32 export; 1 is as far as zeros are.
_TOO_FAR = 0.1
_TOO_FAR_QUANTIZED = 1.0

FORMATS = MappingProxyType(
    {
        "litert": "LiteRT, float32",
        "litert-float16": "LiteRT, float16 weights",
        "litert-dynamic": "LiteRT, int8 weights",
        "litert-int8": "LiteRT, int8 weights and activations",
        "onnx": "ONNX, float32",
        "saved-model": "TensorFlow SavedModel (a folder)",
    }
)


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        path: the file, or the folder of a SavedModel.
        size: in bytes.
        closeness: of its answers to those of the model.
    """

    path: Path
    size: int
    closeness: Closeness


def export_model(
    model: keras.Model,
    to: str,
    target: str | Path,
    *,
    samples: Samples,
    calibration: Samples | None = None,
) -> Export:
    """Convert a model, write the file, run what was written, and put it in place if it answers.

    Args:
        model: any Keras model that was built; it is not changed.
        to: one of `FORMATS`.
        target: the file, or the folder of a SavedModel; an export that is there is replaced.
        samples: to compare answers on, `(n, *input_shape)`; for several inputs a list or dict of
            arrays, in the structure of the model's own input.
        calibration: samples of the same form, for `litert-int8` only.

    Raises:
        SpecError: an unknown format, or `litert-int8` without calibration samples.
        ExportError: the model cannot be converted, or the file does not run or answers otherwise.
        DataError: the samples do not fit the model.
        ArtifactError: the target cannot be written, or is a folder of other things.
    """
    path = Path(target)
    check_format(to, calibrated=calibration is not None)
    written: list[Export] = []

    def write(temporary: str) -> None:
        unchecked = Path(temporary)
        _convert(model, to, unchecked, calibration)
        answers = closeness(model, open_exported(unchecked), samples)
        too_far = _TOO_FAR_QUANTIZED if to in _QUANTIZED else _TOO_FAR
        if answers.largest_difference >= too_far:
            raise ExportError(
                f"the {to} export of model '{model.name}' answers otherwise than the model: "
                f"{answers.largest_difference:.2g} of the largest answer apart; it is not written"
            )
        written.append(Export(path=path, size=size_of(unchecked), closeness=answers))

    write_whole = write_folder_atomically_with if to == _SAVED_MODEL else write_atomically_with
    write_whole(path, write)
    return written[0]


def _convert(model: keras.Model, to: str, target: Path, calibration: Samples | None) -> None:
    if to == _SAVED_MODEL:
        to_saved_model(model, target)
    elif to == _INT8:
        target.write_bytes(to_litert_int8(model, calibration))
    else:
        target.write_bytes(_CONVERTERS[to](model))


def check_format(to: str, *, calibrated: bool) -> None:
    """Raise SpecError unless `to` is one of `FORMATS` and has the calibration it needs."""
    if to not in FORMATS:
        near = difflib.get_close_matches(to, FORMATS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(FORMATS)}"
        raise SpecError(f"no format '{to}' to export to; {hint}")
    if to == _INT8 and not calibrated:
        raise SpecError("litert-int8 needs samples to calibrate with; give data")


def open_exported(path: str | Path) -> ExportedModel:
    """Open a SavedModel folder, a LiteRT file or an ONNX file, whatever their names are.

    Args:
        path: of the folder or file.

    Raises:
        ExportError: it cannot be read, or its runtime rejects it.
    """
    path = Path(path)
    if path.is_dir():
        return SavedModel(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror or error}") from None
    is_litert = content[4:8] == b"TFL3"  # the flatbuffer's own mark
    return LitertModel(content) if is_litert else OnnxModel(content)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
