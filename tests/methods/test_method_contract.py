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
from lrf_core.methods.weights import FitTo
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import geometry_of, take_inventory
from lrf_core.models.splice import splice

CONVOLUTIONS = {
    1: keras.layers.Conv1D,
    2: keras.layers.Conv2D,
    3: keras.layers.Conv3D,
}
relaxed = settings(
    max_examples=15,
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
    strides = draw(st.tuples(*[st.integers(1, 3)] * rank))
    dilation = draw(st.sampled_from([1, 2]))
    assume(max(strides) == 1 or dilation == 1)  # TensorFlow refuses both at once
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


@dataclass(frozen=True)
class Subject:
    """One layout of one method, on the layer of a case."""

    case: Case
    factory: Factorizer
    method: str
    layout: methods.Layout

    def candidate(self, ranks: tuple[int, ...]) -> Candidate:
        return Candidate(
            layer="layer",
            method=self.method,
            form=self.layout.name,
            ranks=ranks,
            cost=self.layout.cost(ranks),
            error=0,
            similarity=1,
            sensitivity=0,
        )

    def decompose(self) -> methods.Decomposition:
        return self.factory.decomposition(self.candidate(self.layout.full_ranks))

    def model(self, ranks: tuple[int, ...]) -> keras.Model:
        return self.factory.factorized(self.factory.fit([self.candidate(ranks)]))


def subjects(case: Case, fit_to: FitTo = "data") -> list[Subject]:
    """Every layout of every method that applies to the case's layer."""
    records = {record.name: record for record in take_inventory(case.model, methods.names())}
    moments = collect_moments(case.model, {"layer": case.layer}, case.samples, batch_size=8)
    factory = Factorizer(case.model, records, moments, fit_to=fit_to)
    return [
        Subject(case, factory, name, layout)
        for name in records["layer"].methods
        for layout in methods.get(name).layouts(geometry_of(records["layer"]))
    ]


def assert_same(model: keras.Model, expected: keras.Model, samples: np.ndarray) -> None:
    answers = expected.predict_on_batch(samples)
    np.testing.assert_allclose(
        model.predict_on_batch(samples), answers, atol=2e-5 * max(1.0, np.abs(answers).max())
    )


@relaxed
@given(layers)
def test_full_rank_is_the_layer_itself(drawn: Drawn) -> None:
    case = drawn.case()
    for subject in subjects(case):
        assert_same(subject.model(subject.layout.full_ranks), case.model, case.samples)


def needs_onednn(layer: keras.Layer) -> bool:
    """TensorFlow's own kernels, and those on GPUs, refuse unequal strides of depthwise ones."""
    return isinstance(layer, keras.layers.DepthwiseConv2D) and len(set(layer.strides)) > 1


@relaxed
@given(layers, st.sampled_from(["data", "weights"]))
def test_chain_has_the_predicted_cost_and_is_its_effective_kernel(
    drawn: Drawn, fit_to: FitTo
) -> None:
    case = drawn.case()
    for subject in subjects(case, fit_to):
        grid = subject.layout.candidate_ranks(4)
        for ranks in (grid[0], grid[len(grid) // 2]):
            chosen = subject.candidate(ranks)
            model = subject.model(ranks)
            assert model_cost(model) == chosen.cost
            assert not [layer for layer in model.layers if needs_onednn(layer)]
            copy = splice(case.model, {})
            subject.factory.assign_kernels(copy, subject.factory.fit([chosen]))
            assert_same(model, copy, case.samples)


@relaxed
@given(layers)
def test_moments_give_the_error_that_the_outputs_show(drawn: Drawn) -> None:
    for subject in subjects(drawn.case()):
        decomposition = subject.decompose()
        kernel, moments = decomposition.kernel, decomposition.moments
        own = kernel.T @ moments.full_second() @ kernel
        for ranks in subject.layout.candidate_ranks(4):
            cross, replaced = decomposition.output_moments(ranks)
            effective = decomposition.effective_kernel(ranks)
            difference = kernel - effective
            np.testing.assert_allclose(
                own - cross - cross.T + replaced,
                difference.T @ moments.full_second() @ difference,
                atol=1e-8 * max(1.0, np.abs(own).max()),
            )
            np.testing.assert_allclose(
                decomposition.outputs(ranks), moments.rows @ effective, atol=1e-3, rtol=1e-3
            )


@relaxed
@given(layers)
def test_error_does_not_grow_with_a_rank(drawn: Drawn) -> None:
    """In the weight and ridge that factors are fitted under, where each fit is optimal."""
    for subject in subjects(drawn.case()):
        decomposition = subject.decompose()
        kernel, moments = decomposition.kernel, decomposition.moments
        second = moments.regularized_second()
        weight = moments.output_weight(kernel.shape[1])
        scale = np.vdot(weight, kernel.T @ second @ kernel)
        errors: dict[tuple[int, ...], float] = {}
        for ranks in subject.layout.candidate_ranks(4):
            difference = kernel - decomposition.effective_kernel(ranks)
            errors[ranks] = float(np.vdot(weight, difference.T @ second @ difference))
        for small in errors:
            for large in errors:
                if all(a <= b for a, b in zip(small, large, strict=True)):
                    assert errors[large] <= errors[small] + 1e-8 * scale


@relaxed
@given(layers)
def test_a_refitted_sweep_is_as_good_at_its_ranks(drawn: Drawn) -> None:
    """`again` on the same kernel and moments does not lose what the decomposition had."""
    for subject in subjects(drawn.case()):
        decomposition = subject.decompose()
        grid = subject.layout.candidate_ranks(4)
        ranks = grid[len(grid) // 2]
        second = decomposition.moments.regularized_second()
        weight = decomposition.moments.output_weight(decomposition.kernel.shape[1])
        errors = []
        for each in (
            decomposition,
            decomposition.restart(ranks)(decomposition.kernel, decomposition.moments),
        ):
            difference = decomposition.kernel - each.effective_kernel(ranks)
            errors.append(float(np.vdot(weight, difference.T @ second @ difference)))
        scale = np.vdot(weight, decomposition.kernel.T @ second @ decomposition.kernel)
        assert errors[1] <= errors[0] + 1e-8 * scale


EXAMPLES = {
    "dense": (lambda: keras.layers.Dense(12, activation="relu", name="layer"), (8,)),
    "pointwise": (lambda: keras.layers.Conv2D(8, 1, name="layer"), (6, 6, 6)),
    "conv1d": (lambda: keras.layers.Conv1D(8, 3, padding="causal", name="layer"), (9, 6)),
    "conv2d": (lambda: keras.layers.Conv2D(8, 3, padding="same", name="layer"), (6, 6, 6)),
    "conv3d": (
        lambda: keras.layers.Conv3D(8, (3, 2, 3), strides=(1, 2, 1), name="layer"),
        (5, 6, 5, 6),
    ),
}


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> list[Subject]:
    make, shape = EXAMPLES[request.param]
    return subjects(case(make(), shape))


def half(layout: methods.Layout) -> tuple[int, ...]:
    return tuple(max(1, full // 2) for full in layout.full_ranks)


def test_every_method_applies_to_some_example() -> None:
    found = {
        subject.method
        for make, shape in EXAMPLES.values()
        for subject in subjects(case(make(), shape))
    }
    assert found == set(methods.names())


def test_every_factor_gets_a_gradient(example: list[Subject]) -> None:
    import tensorflow as tf

    for subject in example:
        model = subject.model(half(subject.layout))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(subject.case.samples) ** 2)
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
        assert len(model.layers) > 2
        assert all(np.abs(gradient.numpy()).max() > 0 for gradient in gradients)


def test_the_chain_converts_to_litert(example: list[Subject]) -> None:
    from lrf_core.export import LitertModel, to_litert

    for subject in example:
        model = subject.model(half(subject.layout))
        one = subject.case.samples[:1]
        np.testing.assert_allclose(
            LitertModel(to_litert(model)).predict(one), model.predict_on_batch(one), atol=1e-4
        )


@pytest.mark.parametrize("wrong", [0, -1, 10**6])
def test_ranks_outside_the_kernel_are_refused(example: list[Subject], wrong: int) -> None:
    for subject in example:
        ranks = tuple(wrong for _ in subject.layout.full_ranks)
        with pytest.raises(SpecError, match=f"{subject.method} ranks .* expected"):
            subject.layout.check_ranks(ranks)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'tucker'"):
        methods.get("tuckr")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        methods.register(methods.get("svd"))
