"""One pass of bounded memory: same moments by any batch size, in any groups, for any layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_arrays, tiny_cnn

from lrf_core.artifacts import LayerRecord
from lrf_core.calibration import calibrated_groups, collect_moments, patches
from lrf_core.calibration.collect import Calibration
from lrf_core.calibration.memory import batch_size_for, bytes_of_moments
from lrf_core.calibration.second_moment import SecondMoment
from lrf_core.data import Split
from lrf_core.errors import SpecError
from lrf_core.methods import Moments
from lrf_core.models.inventory import take_inventory
from lrf_core.models.trace import walk

layers = keras.layers
MODEL = tiny_cnn()
SAMPLES = tiny_arrays(50)[0]


def eligible() -> list[LayerRecord]:
    return [record for record in take_inventory(MODEL, ("tucker", "svd")) if record.methods]


def together(groups: list[dict[str, Moments]]) -> dict[str, Moments]:
    return {path: moments for group in groups for path, moments in group.items()}


def assert_equal(found: Moments, expected: Moments) -> None:
    np.testing.assert_array_equal(found.second, expected.second)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert found.gradient is not None
    assert expected.gradient is not None
    np.testing.assert_array_equal(found.gradient, expected.gradient)
    assert found.rows_seen == expected.rows_seen


@pytest.fixture
def few_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "SUMMED_ROWS", 20 * len(SAMPLES))
    monkeypatch.setattr(patches, "SUMMED_ROWS_PER_INPUT", 1)


@pytest.mark.usefixtures("few_positions")
@pytest.mark.parametrize("window", [1, 7])
def test_the_batch_size_changes_only_roundings(window: int) -> None:
    watched = dict(walk(MODEL))
    chosen = {record.name: watched[record.name] for record in eligible()}
    one, other = (
        collect_moments(MODEL, chosen, SAMPLES, batch_size=size, window=window) for size in (7, 50)
    )
    for path in chosen:
        assert one[path].rows.shape == other[path].rows.shape
        np.testing.assert_allclose(one[path].rows, other[path].rows, atol=1e-4)
        np.testing.assert_allclose(
            one[path].second, other[path].second, atol=1e-5 * np.abs(other[path].second).max()
        )
        assert one[path].gradient is not None
        np.testing.assert_allclose(
            one[path].gradient,
            other[path].gradient,
            atol=1e-4 * np.abs(other[path].gradient).max(),
        )


def test_groups_and_shards_agree_to_the_last_bit() -> None:
    records = eligible()
    largest = max(bytes_of_moments(record, len(SAMPLES)) for record in records)
    in_groups = list(
        calibrated_groups(
            MODEL, records, Split.of(SAMPLES), memory_bytes=5 * largest, batch_size=16
        )
    )
    (at_once,) = calibrated_groups(MODEL, records, Split.of(SAMPLES), batch_size=16)
    assert len(in_groups) > 1
    assert [path for group in in_groups for path in group] == [r.name for r in records]
    shard = records[1::3]
    (of_shard,) = calibrated_groups(
        MODEL, shard, Split.of(SAMPLES), eligible=records, batch_size=16
    )
    assert list(of_shard) == [record.name for record in shard]
    for path, moments in {**together(in_groups)}.items():
        assert_equal(moments, at_once[path])
    for path, moments in of_shard.items():
        assert_equal(moments, at_once[path])


def test_samples_are_never_read_all_at_once() -> None:
    sizes: list[int] = []
    whole = Split.of(SAMPLES)

    def read(indices: np.ndarray) -> np.ndarray:
        sizes.append(len(indices))
        return whole.read(indices)

    list(calibrated_groups(MODEL, eligible(), Split(whole.count, None, read), batch_size=9))
    assert max(sizes) == 9


def test_a_layer_that_does_not_fit_alone() -> None:
    record = max(eligible(), key=lambda each: bytes_of_moments(each, len(SAMPLES)))
    with pytest.raises(
        SpecError,
        match=rf"layer '{record.name}' .*needs .* GiB.*explore.memory_gib allows .*set it to",
    ):
        list(calibrated_groups(MODEL, [record], Split.of(SAMPLES), memory_bytes=2**16))


def test_nothing_wanted_runs_nothing() -> None:
    def read(indices: np.ndarray) -> np.ndarray:
        raise AssertionError(indices)

    assert list(calibrated_groups(MODEL, [], Split(50, None, read), eligible=eligible())) == []


def test_batches_follow_from_the_feature_maps_and_the_budget() -> None:
    mib = 2**20
    assert batch_size_for(1000, 4096 * mib) == 64
    assert batch_size_for(100 * mib, 4096 * mib) == 4
    assert batch_size_for(100 * mib, 1024 * mib) == 2
    assert batch_size_for(10_000 * mib, 4096 * mib) == 1


@pytest.mark.parametrize("width", [3, 1500])
def test_second_moment_of_rows_in_pieces(width: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3700, width)).astype(np.float32)
    moment = SecondMoment(width)
    for part in np.split(rows, [1, 700, 701, 3000]):
        moment.add(part)
    exact = rows.astype(np.float64).T @ rows
    np.testing.assert_allclose(moment.total(), exact, atol=2e-6 * np.abs(exact).max())
    assert moment.rows == len(rows)
    np.testing.assert_array_equal(SecondMoment(width).total(), np.zeros((width, width)))


def test_gradients_are_taken_before_the_layers_own_activation() -> None:
    """Where ReLU is off, an error before it does no harm."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    fused = layers.Dense(5, activation="relu", bias_initializer="glorot_normal", name="dense")
    answers = layers.Dense(3, activation="softmax", name="answers")(fused(inputs))
    model = keras.Model(inputs, answers)
    apart = layers.Dense(5, name="dense")
    other = keras.Model(inputs, model.layers[-1](layers.ReLU()(apart(inputs))))
    apart.set_weights(fused.get_weights())
    samples = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    found = collect_moments(model, {"dense": fused}, samples)["dense"]
    expected = collect_moments(other, {"dense": apart}, samples)["dense"]
    assert found.gradient is not None
    assert np.trace(found.gradient) > 0
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-5, atol=1e-9)
    assert fused.activation is keras.activations.relu


def test_no_gradient_of_a_weight_is_computed() -> None:
    watched = dict(walk(MODEL))
    chosen = {record.name: watched[record.name] for record in eligible()}
    graph = Calibration(MODEL, chosen, Split.of(SAMPLES), seed=0)._step.get_concrete_function()
    used = reachable(graph.outputs)
    kinds = [operation.type for operation in used]
    convolutions = kinds.count("Conv2D")
    assert convolutions == 4
    assert "Conv2DBackpropFilter" not in kinds
    assert kinds.count("Conv2DBackpropInput") == convolutions - 1  # none for the pixels


def reachable(tensors: list[tf.Tensor]) -> set[tf.Operation]:
    found: set[tf.Operation] = set()
    waiting = [tensor.op for tensor in tensors]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting.extend(tensor.op for tensor in operation.inputs)
    return found
