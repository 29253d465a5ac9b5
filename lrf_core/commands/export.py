"""`lrf export`: write a model in the format of a runtime, and say how close its answers are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrf_core.commands.flags import JsonOption, by_spec
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import SpecError
from lrf_core.spec import Spec

if TYPE_CHECKING:
    import keras

    from lrf_core.export import Export
    from lrf_core.models.structure import Samples

DEFAULT_SAMPLES = 128

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="litert, litert-float16, litert-dynamic, litert-int8, onnx or saved-model.",
    ),
]
FileOption = Annotated[
    Path | None, typer.Option("--out", help="File to write; for saved-model a folder.")
]
CountOption = Annotated[
    int,
    typer.Option("--samples", min=1, help="To compare answers on; for int8 also to calibrate."),
]


@by_spec("model", "weights", "data", needs=("model",))
def export(
    spec: Spec,
    to: FormatOption = None,
    samples: CountOption = DEFAULT_SAMPLES,
    out: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model for a runtime, run what was written, and say how close its answers are.

    Compared on test samples of the data, or on random numbers without data. litert-int8 is
    calibrated on training samples of the data, and takes and answers float32 as the others do.
    ONNX needs: pip install 'lrf[onnx]'.

    \b
    Examples:
      lrf export out/candidate/model.keras --to litert --out digits.tflite
      lrf export model.keras --to litert-int8 --data digits.npz --samples 512 --out digits.tflite
      lrf export model.keras --to onnx --data images/ --out digits.onnx --json
      lrf export model.keras --to saved-model --out served/digits/1

    \b
    Exit code: 0 if the file is written and runs, 2 for bad input, 1 for any other failure. Unless
    it is 0, nothing is written.
    """
    if not (to and out):
        raise SpecError(f"{'--out' if to else '--to'} is missing; see lrf export --help")
    import_tensorflow_quietly()
    from lrf_core.export import export_model
    from lrf_core.export.formats import check_format
    from lrf_core.models.load import load_model, weight_bytes

    check_format(to, calibrated=bool(spec.data))
    network = load_model(spec.model, spec.weights)
    compared, calibration = _samples(network, spec, samples)
    written = export_model(network, to, out, samples=compared, calibration=calibration)
    source = f"test samples of {spec.data}" if spec.data else "samples of random numbers"
    found = _Found(spec.model, to, written, weight_bytes(network), source)
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2))
    else:
        _print(found)


@dataclass(frozen=True)
class _Found:
    """An export; `source` says where the samples came from."""

    model: str
    to: str
    export: Export
    weight_bytes: int
    source: str


def _samples(model: keras.Model, spec: Spec, count: int) -> tuple[Samples, Samples | None]:
    """Samples to compare on, and to calibrate with if there is data."""
    from lrf_core.data import open_data
    from lrf_core.export import random_samples

    if not spec.data:
        return random_samples(model, count, spec.seed), None
    opened = open_data(spec.data, model, spec.seed)
    test, train = (split.sample(count, spec.seed) for split in (opened.test, opened.train))
    return test.arrays()[0], train.arrays()[0]


def _as_json(found: _Found) -> dict[str, Any]:
    closeness = found.export.closeness
    return {
        "model": found.model,
        "to": found.to,
        "out": str(found.export.path),
        "weight_bytes": found.weight_bytes,
        "bytes": found.export.size,
        "largest_difference": closeness.largest_difference,
        "same_class_percent": closeness.same_class,
        "samples": closeness.samples,
        "samples_from": found.source,
    }


def _print(found: _Found) -> None:
    from rich.text import Text

    from lrf_core.export import FORMATS
    from lrf_core.redaction import shown
    from lrf_core.report.text import ratio
    from lrf_core.run.summary import print_result

    before, after, closeness = found.weight_bytes, found.export.size, found.export.closeness
    same = "-" if closeness.same_class is None else f"{closeness.same_class:.2f}%"
    rows = (
        (FORMATS[found.to], ""),
        ("  weights of the model", f"{before:,} bytes"),
        ("  exported", f"{after:,} bytes, {ratio(before, after, 'smaller', 'larger')}"),
        ("  largest difference", f"{closeness.largest_difference:.1e} of the largest answer"),
        ("  same class", same),
        ("  compared on", f"{closeness.samples:,} {found.source}"),
    )
    table = "\n".join(f"{label:<24}{words}".rstrip() for label, words in rows)
    print_result(Text(shown(table, lines=True)), found.export.path)
