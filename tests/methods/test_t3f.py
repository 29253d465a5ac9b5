"""TT-matrices of dense layers: awkward sizes, leading axes, and cores fitted to the feature map."""

from __future__ import annotations

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest

from lrf_core import methods
from lrf_core.artifacts import Call, Candidate
from lrf_core.calibration import collect_moments
from lrf_core.exploration.factorize import Factorizer
from lrf_core.export import LitertModel, to_litert
from lrf_core.methods import Geometry, Layout, Moments
from lrf_core.methods.t3f import tt_svd
from lrf_core.methods.tt_matrix import expanded
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import geometry_of, take_inventory


def dense_model(inputs: tuple[int | None, ...], layer: keras.layers.Dense) -> keras.Model:
    rng = np.random.default_rng(0)
    entry = keras.Input(inputs)
    model = keras.Model(entry, layer(entry))
    layer.kernel.assign(rng.normal(size=layer.kernel.shape) / layer.kernel.shape[0] ** 0.5)
    if layer.use_bias:
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def samples_for(shape: tuple[int, ...], count: int = 8) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


class Replaced:
    """A dense layer alone in a model, and the TT-matrices that replace it."""

    def __init__(self, model: keras.Model, samples: np.ndarray) -> None:
        (record,) = take_inventory(model, ("t3f",), samples.shape[1:])
        layer = model.get_layer(record.name)
        moments = collect_moments(model, {record.name: layer}, samples)
        self._record = record
        self._factorizer = Factorizer(model, {record.name: record}, moments)
        self.layouts = methods.get("t3f").layouts(geometry_of(record))

    def by(self, layout: Layout, ranks: tuple[int, ...]) -> keras.Model:
        candidate = Candidate(
            layer=self._record.name,
            method="t3f",
            form=layout.name,
            ranks=ranks,
            cost=layout.cost(ranks),
            error=0,
            similarity=1,
            sensitivity=0,
        )
        return self._factorizer.factorized(self._factorizer.fit([candidate]))


@pytest.mark.parametrize(
    ("inputs", "units", "activation"),
    [
        ((257,), 6, "softmax"),
        ((24,), 1000, "relu"),
        ((4097,), 4, None),
        ((7, 13), 11, "softmax"),
        ((2, 3, 30), 14, "tanh"),
    ],
)
def test_awkward_sizes_are_exact_at_full_rank_and_cost_what_is_said(
    inputs: tuple[int, ...], units: int, activation: str | None
) -> None:
    model = dense_model(inputs, keras.layers.Dense(units, activation=activation))
    samples = samples_for(inputs)
    wanted = model.predict_on_batch(samples)
    replaced = Replaced(model, samples)
    for layout in replaced.layouts:
        exact = replaced.by(layout, layout.full_ranks)
        np.testing.assert_allclose(
            exact.predict_on_batch(samples), wanted, atol=2e-5 * max(1.0, np.abs(wanted).max())
        )
        assert model_cost(exact) == layout.cost(layout.full_ranks)


@pytest.fixture(scope="module")
def padded() -> tuple[Replaced, np.ndarray]:
    """Inputs and outputs are padded, the activation looks at all outputs, one leading axis."""
    layer = keras.layers.Dense(11, activation="softmax", name="answer")
    samples = samples_for((3, 29))
    return Replaced(dense_model((3, 29), layer), samples), samples


def test_every_core_of_a_padded_layer_gets_a_gradient(padded: tuple[Replaced, np.ndarray]) -> None:
    import tensorflow as tf

    replaced, samples = padded
    for layout in replaced.layouts:
        model = replaced.by(layout, layout.ladder[-1])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(samples) ** 2)
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
        assert len(gradients) == len(layout.full_ranks) + 2  # cores and bias
        assert all(np.abs(gradient.numpy()).max() > 0 for gradient in gradients)


def test_a_padded_layer_converts_and_saves(
    padded: tuple[Replaced, np.ndarray], tmp_path: Path
) -> None:
    replaced, samples = padded
    model = replaced.by(replaced.layouts[0], (3,))
    wanted = model.predict_on_batch(samples)
    np.testing.assert_allclose(wanted.sum(axis=-1), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again.predict_on_batch(samples), wanted)
    converted = LitertModel(to_litert(model)).predict(samples)
    np.testing.assert_allclose(converted, wanted, atol=1e-5)


def test_one_leading_axis_may_have_any_size() -> None:
    model = dense_model((None, 30), keras.layers.Dense(14, activation="softmax"))
    replaced = Replaced(model, samples_for((5, 30)))
    layout = replaced.layouts[0]
    exact = replaced.by(layout, layout.full_ranks)
    for length in (2, 9):
        samples = samples_for((length, 30))
        np.testing.assert_allclose(
            exact.predict_on_batch(samples), model.predict_on_batch(samples), atol=1e-5
        )


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((12, 8), (Call(inputs=(4, 3), outputs=(4, 3)),), bias=True, fixed_sizes=False),
        Geometry(
            (12, 8),
            (Call(inputs=(4, 3), outputs=(4, 3)), Call(inputs=(3, 4), outputs=(3, 4))),
            bias=True,
        ),
        Geometry((12, 8), (Call(inputs=(), outputs=()), Call(inputs=(4,), outputs=(4,))), True),
        Geometry((1, 1, 12, 8), (), bias=True),
    ],
    ids=["two open axes", "calls of other sizes", "calls of other depths", "convolution"],
)
def test_layers_whose_axes_no_reshape_can_restore_have_no_form(geometry: Geometry) -> None:
    assert methods.get("t3f").layouts(geometry) == []


def test_settings_are_carried_over() -> None:
    layer = keras.layers.Dense(
        11,
        activation=keras.layers.LeakyReLU(0.3),
        dtype="mixed_float16",
        kernel_regularizer="l2",
        bias_regularizer="l1",
        bias_constraint="non_neg",
        activity_regularizer="l2",
        name="hidden",
    )
    layer.trainable = False
    dense_model((29,), layer)
    layout = methods.get("t3f").layouts(Geometry((29, 11), (), bias=True))[0]
    chain = layout.chain(layer, (2,))
    assert {type(link).__module__.split(".")[0] for link in chain} == {"keras"}
    assert {link.dtype_policy.name for link in chain} == {"mixed_float16"}
    assert chain[-1].activation is layer.activation
    assert chain[-1].activity_regularizer is layer.activity_regularizer
    first, last = (link for link in chain if isinstance(link, keras.layers.EinsumDense))
    assert not first.trainable
    assert not last.trainable
    assert first.kernel_regularizer is last.kernel_regularizer is layer.kernel_regularizer
    assert first.bias_axes is None
    assert last.bias_regularizer is layer.bias_regularizer
    assert last.bias_constraint is layer.bias_constraint


def test_padding_does_not_follow_the_image_data_format() -> None:
    model = dense_model((29,), keras.layers.Dense(11))
    samples = samples_for((29,))
    replaced = Replaced(model, samples)
    keras.config.set_image_data_format("channels_first")
    try:
        exact = replaced.by(replaced.layouts[0], replaced.layouts[0].full_ranks)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(
        exact.predict_on_batch(samples), model.predict_on_batch(samples), atol=1e-5
    )


def test_shapes_compete_under_readable_names() -> None:
    def names(inputs: int, outputs: int) -> list[str]:
        layouts = methods.get("t3f").layouts(Geometry((inputs, outputs), (), bias=False))
        return [layout.name for layout in layouts]

    assert names(1000, 257) == ["40x25 > 13x20", "10x10x10 > 5x6x9"]
    assert names(9216, 4096) == ["24x24x16 > 16x16x16"]
    assert names(2, 2) == ["2x1 > 1x2"]


def correlated(n: int, c: int) -> tuple[np.ndarray, Moments]:
    """A kernel, and moments of inputs and gradients that a few directions dominate."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(400, n)) @ (rng.normal(size=(n, n)) * 0.8 ** np.arange(n)[:, None])
    slopes = rng.normal(size=(400, 6)) @ rng.normal(size=(6, c))
    moments = Moments(
        data.T @ data / 400, slopes.T @ slopes / 400, data[:64].astype(np.float32), 400
    )
    return rng.normal(size=(n, c)), moments


def weighted_error(kernel: np.ndarray, replaced: np.ndarray, moments: Moments) -> float:
    D = kernel - replaced
    weight = moments.output_weight(kernel.shape[1])
    return float(np.vdot(weight, D.T @ moments.regularized_second() @ D))


@pytest.mark.parametrize("n", [48, 150])  # all of S is fitted to, and its principal directions
def test_fitted_cores_are_far_better_than_those_of_the_weights(n: int) -> None:
    kernel, moments = correlated(n, 40)
    for layout in methods.get("t3f").layouts(Geometry(kernel.shape, (), bias=False)):
        ranks = layout.ladder[-1]
        fitted = layout.decompose(kernel, moments).effective_kernel(ranks)
        padding = [(0, layout.modes.shape[0] - n), (0, layout.modes.shape[1] - 40)]
        plain = expanded(tt_svd(np.pad(kernel, padding), layout.modes, ranks))[:n, :40]
        assert weighted_error(kernel, fitted, moments) < 0.15 * weighted_error(
            kernel, plain, moments
        )


@pytest.mark.parametrize("n", [48, 150])
def test_the_error_falls_along_the_ladder(n: int) -> None:
    kernel, moments = correlated(n, 40)
    for layout in methods.get("t3f").layouts(Geometry(kernel.shape, (), bias=False)):
        assert len(layout.ladder) >= 5
        decomposition = layout.decompose(kernel, moments)
        errors = [
            weighted_error(kernel, decomposition.effective_kernel(rung), moments)
            for rung in layout.ladder
        ]
        assert all(after < before for before, after in itertools.pairwise(errors))


def test_a_matrix_of_low_tt_rank_is_found() -> None:
    rng = np.random.default_rng(2)
    _, moments = correlated(48, 40)
    (layout, _) = methods.get("t3f").layouts(Geometry((48, 40), (), bias=False))
    kernel = expanded([rng.normal(size=shape) for shape in layout.modes.core_shapes((2,))])
    found = layout.decompose(kernel, moments).effective_kernel((2,))
    energy = weighted_error(kernel, np.zeros_like(kernel), moments)
    assert weighted_error(kernel, found, moments) < 1e-9 * energy


def test_ranks_between_and_beyond_the_rungs_are_fitted_too() -> None:
    kernel, moments = correlated(48, 40)
    (layout, _) = methods.get("t3f").layouts(Geometry((48, 40), (), bias=False))
    decomposition = layout.decompose(kernel, moments)
    errors = [
        weighted_error(kernel, decomposition.effective_kernel((rank,)), moments)
        for rank in (4, 5, 30)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert [core.shape[-1] for core in decomposition.factors((30,))] == [30, 1]
