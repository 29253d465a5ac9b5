"""Every format takes every kind of layer, answers as Keras does, and is written whole or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from exportable import MODELS, chain, model_of, samples_for

from lrf_core.errors import ArtifactError, ExportError, SpecError
from lrf_core.export import FORMATS, closeness, export_model, open_exported

CLOSE = {
    "litert": 1e-5,
    "litert-float16": 2e-3,
    "litert-dynamic": 0.05,
    "litert-int8": 0.08,
    "onnx": 1e-5,
    "saved-model": 1e-5,
}
HALF_PRECISION = 5e-3
# LiteRT has no int8 Conv3D.
CASES = [
    (name, to) for name in MODELS for to in FORMATS if (name, to) != ("chains_3d", "litert-int8")
]


@pytest.mark.parametrize(("name", "to"), CASES)
def test_a_written_file_answers_as_the_model(name: str, to: str, tmp_path: Path) -> None:
    model = model_of(name)
    samples = samples_for(model)
    export = export_model(model, to, tmp_path / "file", samples=samples, calibration=samples)
    limit = max(CLOSE[to], HALF_PRECISION if name == "mixed_float16" else 0.0)
    assert export.closeness.samples == 40
    assert export.closeness.largest_difference < limit
    assert export.closeness.same_class is not None
    assert export.closeness.same_class >= (85 if limit > 0.01 else 95)
    assert closeness(model, open_exported(export.path), samples) == export.closeness
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_conv3d_in_int8_is_one_clear_line(tmp_path: Path) -> None:
    model = model_of("chains_3d")
    samples = samples_for(model)
    with pytest.raises(ExportError, match="LiteRT has no int8 CONV_3D"):
        export_model(model, "litert-int8", tmp_path / "file", samples=samples, calibration=samples)
    assert not list(tmp_path.iterdir())


def test_smaller_weights_make_a_smaller_file(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = chain((128,), keras.layers.Dense(512, activation="relu"), keras.layers.Dense(128))
    samples = samples_for(model)
    sizes = {
        to: export_model(model, to, tmp_path / to, samples=samples, calibration=samples).size
        for to in FORMATS
    }
    assert sizes["litert-float16"] < 0.52 * sizes["litert"]
    assert sizes["litert-dynamic"] < 0.28 * sizes["litert"]
    assert sizes["litert-int8"] < 0.30 * sizes["litert"]
    assert sizes["saved-model"] == sum(
        file.stat().st_size for file in (tmp_path / "saved-model").rglob("*") if file.is_file()
    )


def test_an_export_that_answers_otherwise_is_not_written(tmp_path: Path) -> None:
    # In bfloat16 the next number after 1000 is 1004; a float32 export does not round like that.
    rounded = chain(
        (4,),
        keras.layers.Rescaling(1.0, 1000.0, dtype="bfloat16"),
        keras.layers.ReLU(dtype="bfloat16"),
        keras.layers.Rescaling(1.0, -1000.0, dtype="bfloat16"),
    )
    (tmp_path / "file").write_bytes(b"an earlier export")
    with pytest.raises(ExportError, match="answers otherwise than the model"):
        export_model(rounded, "litert", tmp_path / "file", samples=samples_for(rounded))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"an earlier export"


def test_int8_with_ranges_that_leave_nothing_of_the_answers_is_not_written(tmp_path: Path) -> None:
    model = model_of("mixed_float16")
    samples = samples_for(model)
    with pytest.raises(ExportError, match="answers otherwise than the model"):
        export_model(
            model, "litert-int8", tmp_path / "file", samples=samples, calibration=1e5 * samples
        )
    assert not list(tmp_path.iterdir())


def test_an_earlier_saved_model_is_replaced_whole(tmp_path: Path) -> None:
    first, second = model_of("dict_of_inputs"), model_of("list_of_inputs")
    export_model(first, "saved-model", tmp_path / "served", samples=samples_for(first))
    export_model(second, "saved-model", tmp_path / "served", samples=samples_for(second))
    served = open_exported(tmp_path / "served")
    assert closeness(second, served, samples_for(second)).largest_difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"miaow")
    model = model_of("list_of_inputs")
    with pytest.raises(ArtifactError, match="exists and is no SavedModel"):
        export_model(model, "saved-model", tmp_path / "photos", samples=samples_for(model))
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"miaow"


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    model = model_of("list_of_inputs")
    with pytest.raises(SpecError, match="did you mean 'litert-int8'"):
        export_model(model, "litert-int16", tmp_path / "file", samples=samples_for(model))


def test_int8_without_samples_to_calibrate_with_is_refused(tmp_path: Path) -> None:
    model = model_of("list_of_inputs")
    with pytest.raises(SpecError, match="needs samples to calibrate with"):
        export_model(model, "litert-int8", tmp_path / "file", samples=samples_for(model))


def test_a_file_of_something_else_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some text")
    with pytest.raises(ExportError, match="onnxruntime refuses the model"):
        open_exported(tmp_path / "file")
    with pytest.raises(ExportError, match="cannot read"):
        open_exported(tmp_path / "none")
    with pytest.raises(ExportError, match="no SavedModel"):
        open_exported(tmp_path)


def test_a_file_runs_where_lrf_is_not_installed(tmp_path: Path) -> None:
    model = model_of("list_of_inputs")
    samples = samples_for(model, 3)
    export_model(model, "onnx", tmp_path / "lists.onnx", samples=samples)
    np.savez(tmp_path / "inputs.npz", zeta=samples[0], alpha=samples[1])
    program = (
        "import sys; sys.modules['lrf_core'] = None\n"
        "import numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession('lists.onnx')\n"
        "np.save('answer.npy', session.run(['output_1'], dict(np.load('inputs.npz')))[0])\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True, timeout=120
    )
    expected = np.asarray(model.predict_on_batch(samples)[1])
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), expected, atol=1e-5)
