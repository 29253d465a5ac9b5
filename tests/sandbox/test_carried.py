"""A model made of JSON and raw numbers is the model that they were taken from."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from tiny import tiny_cnn

from lrf_core.models.load import model_digest
from lrf_core.sandbox.carried import described, made_from, write_contents

layers = keras.layers


def nested() -> keras.Model:
    part = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dropout(0.5)])
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(part(part(inputs))))


def adapted() -> keras.Model:
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (64, 4)))
    return keras.Sequential([keras.Input((4,)), normalization, layers.Dense(2)])


def with_vocabulary() -> keras.Model:
    text = layers.TextVectorization(output_mode="multi_hot")
    text.adapt(np.array(["low rank", "tensor train", "Zürich"]))
    return keras.Sequential([keras.Input((), dtype="string"), text, layers.Dense(2)])


def bfloat16() -> keras.Model:
    dense = layers.Dense(2, dtype=keras.DTypePolicy("bfloat16"))
    return keras.Sequential([keras.Input((4,)), dense])


def recurrent() -> keras.Model:
    return keras.Sequential(
        [keras.Input((5, 3)), layers.Bidirectional(layers.LSTM(4)), layers.Dense(2)]
    )


def frozen() -> keras.Model:
    model = tiny_cnn()
    model.get_layer("conv0").trainable = False
    return model


def sent(model: keras.Model) -> tuple[dict[str, Any], bytes]:
    header, contents = described(model)
    file = io.BytesIO()
    write_contents(contents, file)
    return json.loads(json.dumps(header)), file.getvalue()


@pytest.mark.parametrize(
    "make", [tiny_cnn, nested, adapted, with_vocabulary, bfloat16, recurrent, frozen]
)
def test_a_model_is_the_same_on_the_other_side(make: Callable[[], keras.Model]) -> None:
    model = make()
    header, contents = sent(model)

    made = made_from(header, io.BytesIO(contents), len(contents))

    assert model_digest(made) == model_digest(model)
    assert [v.name for v in made.trainable_variables] == [v.name for v in model.trainable_variables]
    for before, after in zip(model.variables, made.variables, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(before), keras.ops.convert_to_numpy(after))


def shorter(header: dict[str, Any], contents: bytes) -> bytes:
    return contents[:-1]


def longer(header: dict[str, Any], contents: bytes) -> bytes:
    return contents + b"x"


def of_another_shape(header: dict[str, Any], contents: bytes) -> bytes:
    header["layers"][-1]["variables"]["0"][1] = [2, 4]
    return contents


def of_objects(header: dict[str, Any], contents: bytes) -> bytes:
    header["layers"][-1]["variables"]["0"][0] = "object"
    return contents


def of_negative_size(header: dict[str, Any], contents: bytes) -> bytes:
    header["layers"][-1]["variables"]["0"][1] = [-4, 2]
    return contents


@pytest.mark.parametrize("spoil", [shorter, longer, of_another_shape, of_objects, of_negative_size])
def test_parts_that_do_not_fit_make_no_model(
    spoil: Callable[[dict[str, Any], bytes], bytes],
) -> None:
    header, contents = sent(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    spoilt = spoil(header, contents)
    with pytest.raises((ValueError, TypeError)):
        made_from(header, io.BytesIO(spoilt), len(spoilt))


def test_an_asset_cannot_lead_out_of_its_folder() -> None:
    header, contents = sent(with_vocabulary())
    for each in header["layers"]:
        each["assets"] = {f"../../{name}": size for name, size in each["assets"].items()}

    assert model_digest(made_from(header, io.BytesIO(contents), len(contents)))
