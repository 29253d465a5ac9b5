"""Models that compute or store their weights in less than float32."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from lrf_core import methods
from lrf_core.calibration import collect_moments
from lrf_core.errors import SpliceError
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import geometry_of, take_inventory
from lrf_core.models.load import load_model, model_digest, save_model, weight_bytes
from lrf_core.models.precision import in_float32
from lrf_core.models.splice import (
    check_can_be_rebuilt,
    check_same_answers,
    largest_difference,
    splice,
)
from lrf_core.models.trace import walk

layers = keras.layers
POLICIES = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
SAMPLES = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)


def model_of(policy: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, dtype=policy, name="conv")(inputs)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.TimeDistributed(layers.Dense(6, dtype=policy), dtype=policy, name="each")(x)
    x = layers.Flatten(dtype=policy)(x)
    outputs = layers.Dense(4, activation="softmax", dtype=policy, name="head")(x)
    return keras.Model(inputs, outputs)


def eligible(model: keras.Model) -> list[str]:
    return [record.name for record in take_inventory(model, ("tucker", "svd")) if record.methods]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_copy_keeps_the_policy(policy: str, tmp_path: Path) -> None:
    model = model_of(policy)
    copy = splice(model, {})
    assert {layer.dtype_policy.name for _, layer in walk(copy) if layer.weights} == {policy}
    assert largest_difference(model, copy, SAMPLES) == 0.0
    loaded = load_model(save_model(copy, tmp_path))
    assert model_digest(loaded) == model_digest(copy)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_float32_copy_has_the_same_layers_and_weights(policy: str) -> None:
    model = model_of(policy)
    copy = in_float32(model)
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    assert [path for path, _ in walk(copy)] == [path for path, _ in walk(model)]
    for before, after in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(before.astype(np.float32), after)
    assert largest_difference(model, copy, SAMPLES) < 0.05


def test_a_float32_model_is_not_copied() -> None:
    model = model_of("float32")
    assert in_float32(model) is model


@pytest.mark.parametrize("policy", POLICIES)
def test_layers_are_replaced_in_the_policy_of_the_model(policy: str) -> None:
    model = model_of(policy)
    check_can_be_rebuilt(model, model, eligible(model), SAMPLES)
    records = {record.name: record for record in take_inventory(model, ("tucker", "svd"))}
    layout = methods.get("tucker").layouts(geometry_of(records["conv"]))[0]
    chain = layout.chain(model.get_layer("conv"), (2, 4))
    spliced = splice(model, {"conv": chain})
    assert {link.dtype_policy.name for link in chain} == {policy}
    assert model_cost(spliced).params == spliced.count_params()


@pytest.mark.parametrize("policy", POLICIES)
def test_calibration_runs_in_float32(policy: str) -> None:
    model = model_of(policy)
    chosen = {path: model.get_layer(path) for path in ("conv", "head")}
    plain = in_float32(model)
    expected = collect_moments(plain, {path: plain.get_layer(path) for path in chosen}, SAMPLES)
    found = collect_moments(model, chosen, SAMPLES)
    for path in chosen:
        np.testing.assert_array_equal(found[path].second, expected[path].second)
        np.testing.assert_array_equal(found[path].gradient, expected[path].gradient)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_wrong_rebuild_is_still_seen(policy: str) -> None:
    model = model_of(policy)
    other = splice(model, {})
    kernel = keras.ops.convert_to_numpy(other.get_layer("conv").kernel).astype(np.float32)
    other.get_layer("conv").kernel.assign(-kernel)
    with pytest.raises(SpliceError, match="differs"):
        check_same_answers(model, other, SAMPLES)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_inventory_tells_the_bytes_of_weights(policy: str) -> None:
    model = model_of(policy)
    inventory = take_inventory(model, ("tucker", "svd"))
    assert sum(layer.cost.params * layer.itemsize for layer in inventory) == weight_bytes(model)
