from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
from exportable import chain, samples_for

from lrf_core.errors import ExportError
from lrf_core.export import OnnxModel, closeness, to_onnx
from lrf_core.models.load import model_digest

layers = keras.layers


def difference(model: keras.Model) -> float:
    return closeness(model, OnnxModel(to_onnx(model)), samples_for(model)).largest_difference


def test_constants_of_a_layer_are_no_inputs() -> None:
    scaled = chain(
        (6, 3), layers.Normalization(mean=[1, 2, 3], variance=[1, 4, 9]), layers.Flatten()
    )
    assert OnnxModel(to_onnx(scaled)).input_names == ("signal",)
    assert difference(scaled) < 1e-5


def test_letters_of_an_einsum_that_differ_in_case_stay_two() -> None:
    outer = chain(
        (4, 6), layers.EinsumDense("biA,aA->biaA", output_shape=(4, 3, 6)), layers.Flatten()
    )
    assert difference(outer) < 1e-5


def test_a_long_einsum_takes_no_search() -> None:
    nine_letters = chain(
        (2, 2, 2, 2, 2, 4),
        layers.EinsumDense("bcdefgh,ghij->bcdefij", output_shape=(2, 2, 2, 2, 3, 3)),
        layers.Flatten(),
    )
    nodes = to_onnx(nine_letters)
    assert b"Einsum" in nodes
    assert difference(nine_letters) < 1e-5


def test_layers_for_training_only_are_left_out() -> None:
    noisy = chain((4,), layers.Dense(8), layers.Dropout(0.5), layers.GaussianNoise(1.0))
    assert difference(noisy) < 1e-5


def test_the_batch_axis_is_open_and_named() -> None:
    import onnx

    content = onnx.load_from_string(to_onnx(chain((4,), layers.Dense(8))))
    for tensor in (*content.graph.input, *content.graph.output):
        assert tensor.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_an_operation_that_onnx_has_not_is_one_clear_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    inputs = keras.Input((4,))
    odd = keras.Model(inputs, keras.ops.erfinv(layers.Dense(2)(inputs)), name="odd")
    with pytest.raises(ExportError, match=r"ONNX cannot express model 'odd'.*Erfinv"):
        to_onnx(odd)
    assert capfd.readouterr() == ("", "")


def test_exporting_says_nothing_and_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model = chain((6, 6, 4), layers.Conv2D(8, 3, groups=2), layers.Flatten())
    before = model_digest(model)
    assert difference(model) < 1e-5
    assert capfd.readouterr() == ("", "")
    assert model_digest(model) == before


def test_samples_of_another_shape_are_refused() -> None:
    exported = OnnxModel(to_onnx(chain((4,), layers.Dense(8))))
    with pytest.raises(ExportError, match="onnxruntime cannot run the model"):
        exported.predict(np.zeros((1, 5), np.float32))


@pytest.mark.parametrize("package", ["tf2onnx", "onnx", "onnxruntime"])
def test_without_the_extra_it_says_how_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"{package}.*not installed; pip install 'lrf\[onnx\]'"):
        OnnxModel(to_onnx(chain((4,), layers.Dense(8))))
