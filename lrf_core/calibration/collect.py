"""Passes over the calibration samples: second moments, kept rows and gradient moments."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lrf_core.artifacts import LayerRecord
from lrf_core.calibration.lazy_tensorflow import tf
from lrf_core.calibration.loss import likelihood_loss, named_loss
from lrf_core.calibration.memory import DEFAULT_MEMORY_BYTES, batch_size_for, groups_that_fit
from lrf_core.calibration.patches import (
    gathered_positions,
    gathered_rows,
    patch_table,
    positions_to_sum,
)
from lrf_core.calibration.positions import CallPositions, LayerPositions
from lrf_core.calibration.second_moment import SecondMoment
from lrf_core.calibration.tap import survey, tapped
from lrf_core.console.progress import work
from lrf_core.data import Split
from lrf_core.errors import DataError
from lrf_core.methods import Moments
from lrf_core.methods.moments import LARGEST_DOUBLE, is_root
from lrf_core.models.precision import in_float32
from lrf_core.models.structure import Samples, sample_count
from lrf_core.models.trace import walk

# Uniform numbers are kept this far from 0 and 1, where their logarithm and quantile are infinite.
_MARGIN = 1e-7

_logger = logging.getLogger("lrf")


def calibrated_groups(
    model: keras.Model,
    records: Sequence[LayerRecord],
    samples: Split,
    *,
    eligible: Sequence[LayerRecord] | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    batch_size: int | None = None,
    seed: int = 0,
    loss: str | None = None,
    window: int = 1,
) -> Iterator[dict[str, Moments]]:
    """The moments of layers, in groups that fit the budget; one pass over the samples for each.

    Moments do not depend on `records` or on the groups, bit for bit, as long as `eligible` and the
    other arguments are the same.

    Args:
        records: the layers whose moments are wanted, in the order of the model.
        samples: read batch by batch, never all at once.
        eligible: all layers that could be asked for; by default those in `records`.
        memory_bytes: for the moments of a group and the arithmetic on them; also limits the
            batches.
        batch_size: samples at once; by default as many as have feature maps that fit the budget.
        loss: `module:function` in place of the likelihood of the outputs, see `loss`.
        window: side of the windows that rows are kept in, see `LayerPositions`.

    Raises:
        SpecError: the moments of one layer alone do not fit, or the loss cannot be used.
        DataError: a layer's input is not finite on some sample.
    """
    groups = groups_that_fit(records, samples.count, memory_bytes)
    if not groups:
        return
    names = {record.name for record in (*records, *(eligible or ()))}
    calibration = Calibration(
        model,
        {path: layer for path, layer in walk(model) if path in names},
        samples,
        memory_bytes=memory_bytes,
        batch_size=batch_size,
        seed=seed,
        loss=loss,
        window=window,
    )
    for index, group in enumerate(groups):
        part = f" (part {index + 1} of {len(groups)})" if len(groups) > 1 else ""
        yield calibration.moments([record.name for record in group], f"Calibrating{part}")


def collect_moments(
    model: keras.Model,
    layers: Mapping[str, keras.Layer],
    samples: Samples | Split,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    loss: str | None = None,
    window: int = 1,
) -> dict[str, Moments]:
    """The moments of all these layers, in one pass.

    Args:
        layers: path to convolution or dense layer of `model`.
        samples: a split, or `(samples, *input_shape)`; a list or dict of arrays for several
            inputs.
        batch_size, loss, window: as in `calibrated_groups`.

    Raises:
        SpecError: the loss cannot be used.
        DataError: a layer's input is not finite on some sample.
    """
    split = samples if isinstance(samples, Split) else Split.of(samples)
    calibration = Calibration(
        model, layers, split, batch_size=batch_size, seed=seed, loss=loss, window=window
    )
    return calibration.moments(list(layers), "Calibrating")


class Calibration:
    """Runs samples through a model and reduces what its layers see.

    The gradient is that of the log-likelihood of labels drawn from the model's own answers (see
    `fisher`), so its second moment is the Fisher information at the layer's output, before the
    layer's own activation (Martens and Grosse 2015, arXiv 1503.05671); no label is needed. A model
    of lower precision is run in float32.

    Args:
        layers: path to convolution or dense layer of `model`. All are tapped in every pass,
            whichever are asked for, so that what is computed is the same to the last bit.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Mapping[str, keras.Layer],
        samples: Split,
        *,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        batch_size: int | None = None,
        seed: int,
        loss: str | None = None,
        window: int = 1,
    ) -> None:
        self._model = in_float32(model)
        running = dict(walk(self._model))
        self._layers = {path: running[path] for path in layers}
        self._samples = samples
        self._seed = seed
        self._window = window
        first = samples.read(np.arange(_least_batch(self._model)))
        found = survey(self._model, self._layers, first)
        self._tables = {
            path: [patch_table(self._layers[path], shape) for shape in calls.inputs]
            for path, calls in found.calls.items()
        }
        self._batch_size = batch_size or batch_size_for(
            found.bytes_per_sample + self._bytes_of_rows(), memory_bytes
        )
        self._loss = (
            named_loss(loss) if loss else likelihood_loss(self._model, samples, self._batch_size)
        )
        self._answer_shapes = found.answers
        self._step = tf.function(
            self._forward_and_gradient, autograph=False, input_signature=self._signature(first)
        )

    def moments(self, paths: Sequence[str], description: str) -> dict[str, Moments]:
        """One pass over the samples. Raises DataError."""
        count = self._samples.count
        positions = {path: self._positions(path) for path in paths}
        totals = {path: _Totals.of(self._layers[path], positions[path]) for path in paths}
        uniform = _Uniform(self._answer_shapes, self._seed)
        start = 0
        with work(description, count) as advance:
            for batch, _ in self._samples.batches(self._batch_size):
                size = sample_count(batch)
                drawn = {path: own.of_batch(start, size) for path, own in positions.items()}
                seen = self._step(
                    keras.tree.map_structure(tf.convert_to_tensor, batch),
                    [tf.constant(values) for values in uniform.of_batch(size)],
                    self._indices(drawn),
                )
                for path, calls in drawn.items():
                    for call, rows, gradient in zip(calls, *seen[path], strict=True):
                        totals[path].add(call, rows, gradient)
                start += size
                advance(size)
        return {path: totals.pop(path).moments(path, count) for path in paths}

    def _positions(self, path: str) -> LayerPositions:
        per_sample = positions_to_sum(self._layers[path], self._samples.count)
        return LayerPositions(
            path,
            self._tables[path],
            self._samples.count,
            per_sample,
            seed=self._seed,
            side=self._window,
        )

    def _bytes_of_rows(self) -> int:
        """Of the rows and gradients gathered of one sample."""
        return sum(
            4
            * (math.prod(layer.kernel.shape[:-1]) + layer.kernel.shape[-1])
            * min(table.positions, positions_to_sum(layer, self._samples.count))
            for path, layer in self._layers.items()
            for table in self._tables[path]
        )

    def _signature(self, first: Samples) -> list[Any]:
        return [
            keras.tree.map_structure(lambda one: _open_spec(tf.convert_to_tensor(one)), first),
            [tf.TensorSpec([None, *shape], tf.float32) for shape in self._answer_shapes],
            {
                path: [
                    (
                        tf.TensorSpec([None, table.window], tf.int32),
                        tf.TensorSpec([None], tf.int32),
                    )
                    for table in tables
                ]
                for path, tables in self._tables.items()
            },
        ]

    def _indices(self, drawn: Mapping[str, Sequence[CallPositions]]) -> dict[str, list[Any]]:
        """What to gather: rows at the summed and the kept positions, gradients at the summed."""
        return {
            path: [
                (tf.constant(call.row_indices()), tf.constant(call.summed, tf.int32))
                for call in drawn[path]
            ]
            if path in drawn
            else [_nothing(table.window) for table in tables]
            for path, tables in self._tables.items()
        }

    def _forward_and_gradient(
        self, batch: Samples, uniform: list[tf.Tensor], indices: dict[str, list[Any]]
    ) -> dict[str, tuple[list[tf.Tensor], list[tf.Tensor | None]]]:
        inputs: dict[str, list[tf.Tensor]] = {path: [] for path in self._layers}
        products: dict[str, list[tf.Tensor]] = {path: [] for path in self._layers}
        # Only products are watched: no gradient of a weight is computed.
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def note(path: str, product: tf.Tensor) -> None:
                tape.watch(product)
                products[path].append(product)

            with tapped(self._layers, note, lambda path, source: inputs[path].append(source)):
                answers = self._model(batch, training=False)
            loss = self._loss(answers, keras.tree.pack_sequence_as(answers, uniform))
        gradients = tape.gradient(loss, products)
        return {
            path: (
                [
                    gathered_rows(layer, source, of_rows)
                    for source, (of_rows, _) in zip(inputs[path], indices[path], strict=True)
                ],
                [
                    None if one is None else gathered_positions(layer, one, of_products)
                    for one, (_, of_products) in zip(gradients[path], indices[path], strict=True)
                ],
            )
            for path, layer in self._layers.items()
        }


@dataclass
class _Totals:
    """Running sums of one layer."""

    second: SecondMoment
    gradient: SecondMoment | None
    kept: NDArray[np.float32]

    @classmethod
    def of(cls, layer: keras.Layer, positions: LayerPositions) -> _Totals:
        width, outputs = math.prod(layer.kernel.shape[:-1]), layer.kernel.shape[-1]
        kept = np.zeros((positions.rows_kept, width), np.float32)
        return cls(SecondMoment(width), SecondMoment(outputs), kept)

    def add(self, call: CallPositions, rows: tf.Tensor, gradient: tf.Tensor | None) -> None:
        gathered = rows.numpy()
        summed, self.kept[call.slots] = np.split(gathered, [len(call.summed)])
        # Positions were sampled: the sum stands for all of them.
        scale = np.float32(math.sqrt(call.weight))
        self.second.add(summed * scale)
        if gradient is None:
            self.gradient = None
        elif self.gradient is not None:
            self.gradient.add(gradient.numpy() * scale)

    def moments(self, path: str, samples: int) -> Moments:
        second = self.second.total()
        if not np.isfinite(second).all():
            raise DataError(
                f"the input of layer '{path}' is not finite on the calibration samples; check "
                "the data's scale and the model's weights"
            )
        if not second.any():
            _logger.warning(
                "layer '%s' sees nothing but zeros on the calibration samples: there any "
                "replacement looks as good as it; check the data, or leave the layer out "
                "(explore.exclude)",
                path,
            )
        gradient = None if self.gradient is None else self.gradient.full()
        if gradient is not None and not np.isfinite(gradient).all():
            _logger.warning("layer '%s': gradient is not finite, sensitivity is off", path)
            gradient = None
        second /= math.sqrt(samples) if is_root(second) else samples
        if second.size > LARGEST_DOUBLE:
            second = second.astype(np.float32)
        if gradient is not None:
            gradient /= samples
        return Moments(second, gradient, self.kept, rows_seen=self.second.rows)


class _Uniform:
    """Numbers between 0 and 1 for each sample's answers, whatever the batches."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], seed: int) -> None:
        self._shapes = shapes
        # NumPy pads seeds with zeros: without a number of its own, [seed, 0] would be the seed.
        self._rngs = [np.random.default_rng([seed, 1, index]) for index in range(len(shapes))]

    def of_batch(self, size: int) -> list[NDArray[np.float32]]:
        return [
            np.clip(rng.random((size, *shape), np.float32), _MARGIN, 1 - _MARGIN)
            for rng, shape in zip(self._rngs, self._shapes, strict=True)
        ]


def _least_batch(model: keras.Model) -> int:
    """One sample, or as many as the model insists on."""
    return model.inputs[0].shape[0] or 1


def _open_spec(tensor: tf.Tensor) -> tf.TensorSpec:
    """Of a batch of any size: one graph for all batches, the last and smaller one as well."""
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def _nothing(window: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros([0, window], tf.int32), tf.zeros([0], tf.int32)
