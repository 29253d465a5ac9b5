"""What every registered method must do, on random layers of every kind it applies to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lrf_core import methods
from lrf_core.artifacts import Candidate
from lrf_core.calibration import collect_moments
from lrf_core.errors import SpecError
from lrf_core.exploration.factorize import Factorizer
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import geometry_of, kernel_matrix, take_inventory

CONVOLUTIONS = {
    1: keras.layers.Conv1D,
    2: keras.layers.Conv2D,
    3: keras.layers.Conv3D,
}
relaxed = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@dataclass(frozen=True)
class Case:
    """A layer alone in a model, and samples for it."""

    model: keras.Model
    layer: keras.Layer
    samples: np.ndarray


def case(layer: keras.Layer, shape: tuple[int, ...], seed: int = 0, count: int = 24) -> Case:
    rng = np.random.default_rng(seed)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    if layer.use_bias:
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    samples = rng.normal(size=(count, *shape)).astype(np.float32)
    return Case(model, layer, samples)


@dataclass(frozen=True)
class Drawn:
    """What hypothesis chooses; the layer is built in the test (Keras draws names at random)."""

    kind: type[keras.Layer]
    settings: dict[str, Any]
    shape: tuple[int, ...]
    seed: int

    def case(self) -> Case:
        return case(self.kind(**self.settings, name="layer"), self.shape, self.seed)


@st.composite
def convolutions(draw: st.DrawFn) -> Drawn:
    """Every stride, padding, dilation, bias, activation and data format that TF runs on a CPU."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    strides = draw(st.sampled_from([1, 2]))
    dilation = draw(st.sampled_from([1, 2]))
    assume(strides == 1 or dilation == 1)  # TensorFlow refuses both at once
    settings = {
        "filters": draw(st.integers(1, 6)),
        "kernel_size": draw(st.tuples(*[st.integers(1, 3)] * rank)),
        "strides": strides,
        "dilation_rate": dilation,
        "padding": draw(st.sampled_from(["same", "valid", "causal"][: 3 if rank == 1 else 2])),
        "use_bias": draw(st.booleans()),
        "activation": draw(st.sampled_from([None, "relu", "tanh"])),
        "data_format": draw(st.sampled_from(["channels_last", "channels_first"])),
    }
    spatial = draw(st.tuples(*[st.integers(5, 8)] * rank))
    channels = (draw(st.integers(1, 5)),)
    first = settings["data_format"] == "channels_first"
    shape = channels + spatial if first else spatial + channels
    return Drawn(CONVOLUTIONS[rank], settings, shape, draw(st.integers(0, 99)))


@st.composite
def dense_layers(draw: st.DrawFn) -> Drawn:
    settings = {
        "units": draw(st.integers(1, 9)),
        "use_bias": draw(st.booleans()),
        "activation": draw(st.sampled_from([None, "relu", "softmax"])),
    }
    assume(settings["units"] > 1 or settings["activation"] != "softmax")
    leading = draw(st.sampled_from([(), (3,), (2, 2)]))
    shape = (*leading, draw(st.integers(1, 12)))
    return Drawn(keras.layers.Dense, settings, shape, draw(st.integers(0, 99)))


layers = st.one_of(convolutions(), dense_layers())


def factorizer(case: Case) -> tuple[Factorizer, Any]:
    records = {record.name: record for record in take_inventory(case.model, methods.names())}
    moments = collect_moments(case.model, {"layer": case.layer}, case.samples, batch_size=8)
    return Factorizer(case.model, records, moments), records["layer"]


def candidate(record: Any, layer: keras.Layer, name: str, ranks: tuple[int, ...]) -> Candidate:
    geometry = geometry_of(layer, record.positions, record.input_positions)
    cost = methods.get(name).cost(geometry, ranks)
    return Candidate(
        layer="layer", method=name, ranks=ranks, cost=cost, error=0, similarity=1, sensitivity=0
    )


def ranks_of(name: str, record: Any, layer: keras.Layer) -> list[tuple[int, ...]]:
    geometry = geometry_of(layer, record.positions, record.input_positions)
    return methods.get(name).candidate_ranks(geometry, 4)


@relaxed
@given(layers)
def test_full_rank_is_the_layer_itself(drawn: Drawn) -> None:
    case = drawn.case()
    factory, record = factorizer(case)
    for name in record.methods:
        geometry = geometry_of(case.layer, record.positions, record.input_positions)
        full = methods.get(name).full_ranks(geometry)
        model = factory.factorized([candidate(record, case.layer, name, full)])
        expected = case.model.predict_on_batch(case.samples)
        np.testing.assert_allclose(
            model.predict_on_batch(case.samples),
            expected,
            atol=2e-5 * max(1.0, np.abs(expected).max()),
        )


@relaxed
@given(layers)
def test_chain_has_the_predicted_cost_and_is_its_effective_kernel(drawn: Drawn) -> None:
    case = drawn.case()
    factory, record = factorizer(case)
    for name in record.methods:
        grid = ranks_of(name, record, case.layer)
        for ranks in (grid[0], grid[len(grid) // 2]):
            chosen = candidate(record, case.layer, name, ranks)
            model = factory.factorized([chosen])
            assert model_cost(model) == chosen.cost
            expected = factory.model_with_kernels([chosen]).predict_on_batch(case.samples)
            np.testing.assert_allclose(
                model.predict_on_batch(case.samples),
                expected,
                atol=2e-5 * max(1.0, np.abs(expected).max()),
            )


@relaxed
@given(layers)
def test_moments_give_the_error_that_the_outputs_show(drawn: Drawn) -> None:
    case = drawn.case()
    factory, record = factorizer(case)
    moments = factory._moments["layer"]
    kernel = kernel_matrix(case.layer)
    own = kernel.T @ moments.second @ kernel
    for name in record.methods:
        for ranks in ranks_of(name, record, case.layer):
            sweep = factory._sweep(candidate(record, case.layer, name, ranks))
            cross, replaced = sweep.output_moments(ranks)
            effective = sweep.effective_kernel(ranks)
            difference = kernel - effective
            np.testing.assert_allclose(
                own - cross - cross.T + replaced,
                difference.T @ moments.second @ difference,
                atol=1e-8 * max(1.0, np.abs(own).max()),
            )
            np.testing.assert_allclose(
                sweep.outputs(ranks), moments.rows @ effective, atol=1e-3, rtol=1e-3
            )


@relaxed
@given(layers)
def test_error_does_not_grow_with_a_rank(drawn: Drawn) -> None:
    """In the weight and ridge that factors are fitted under, where each fit is optimal."""
    case = drawn.case()
    factory, record = factorizer(case)
    moments = factory._moments["layer"]
    kernel = kernel_matrix(case.layer)
    second = moments.regularized_second()
    weight = moments.output_weight(kernel.shape[1])
    scale = np.vdot(weight, kernel.T @ second @ kernel)
    for name in record.methods:
        errors: dict[tuple[int, ...], float] = {}
        for ranks in ranks_of(name, record, case.layer):
            sweep = factory._sweep(candidate(record, case.layer, name, ranks))
            difference = kernel - sweep.effective_kernel(ranks)
            errors[ranks] = float(np.vdot(weight, difference.T @ second @ difference))
        for small in errors:
            for large in errors:
                if all(a <= b for a, b in zip(small, large, strict=True)):
                    assert errors[large] <= errors[small] + 1e-8 * scale


@pytest.mark.parametrize("name", methods.names())
def test_every_factor_gets_a_gradient_and_the_model_converts(name: str) -> None:
    import tensorflow as tf

    from lrf_core.export import LitertModel, to_litert

    layer = (
        keras.layers.Dense(8, name="layer")
        if name == "svd"
        else keras.layers.Conv2D(8, 3, padding="same", name="layer")
    )
    example = case(layer, (6,) if name == "svd" else (6, 6, 6))
    factory, record = factorizer(example)
    ranks = tuple(max(1, full // 2) for full in _full(name, record, layer))
    model = factory.factorized([candidate(record, layer, name, ranks)])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(example.samples) ** 2)
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert len(model.layers) > 2
    assert all(np.abs(gradient.numpy()).max() > 0 for gradient in gradients)
    one = example.samples[:1]
    np.testing.assert_allclose(
        LitertModel(to_litert(model)).predict(one), model.predict_on_batch(one), atol=1e-4
    )


def _full(name: str, record: Any, layer: keras.Layer) -> tuple[int, ...]:
    geometry = geometry_of(layer, record.positions, record.input_positions)
    return methods.get(name).full_ranks(geometry)


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("wrong", [0, -1, 10**6])
def test_ranks_outside_the_kernel_are_refused(name: str, wrong: int) -> None:
    geometry = methods.Geometry((3, 3, 4, 6), 16, 16, True)
    if not methods.get(name).applies_to(geometry):
        geometry = methods.Geometry((4, 6), 1, 1, True)
    ranks = tuple(wrong for _ in methods.get(name).full_ranks(geometry))
    with pytest.raises(SpecError, match=f"{name} ranks .* expected"):
        methods.get(name).check_ranks(geometry, ranks)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'tucker'"):
        methods.get("tuckr")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        methods.register(methods.get("svd"))
