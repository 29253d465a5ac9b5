"""Score every candidate of one layer from its moments, without running the model."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Candidate, LayerRecord
from lrf_core.exploration.similarity import METRICS, Metric
from lrf_core.methods import Moments
from lrf_core.methods.base import Matrix, Sweep
from lrf_core.models.inventory import geometry_of, kernel_matrix


def score_layer(
    record: LayerRecord, layer: keras.Layer, moments: Moments, *, per_mode: int, similarity: str
) -> list[Candidate]:
    """All candidates of one layer that have fewer parameters than it has.

    Args:
        record: the layer in the Analysis; its `methods` compete.
        per_mode: ranks offered per mode, at most.
        similarity: name of a metric in `similarity.METRICS`, taken on the feature map after the
            layer's own bias and activation.
    """
    geometry = geometry_of(layer, record.positions, record.input_positions)
    judge = _Judge(layer, kernel_matrix(layer), moments, METRICS[similarity])
    candidates = []
    for name in record.methods:
        method = methods.get(name)
        sweep: Sweep | None = None
        for ranks in method.candidate_ranks(geometry, per_mode):
            cost = method.cost(geometry, ranks)
            if cost.params >= geometry.cost.params:
                continue
            sweep = sweep or method.sweep(geometry, judge.kernel, moments)
            error, sensitivity = judge.errors(sweep, ranks)
            candidates.append(
                Candidate(
                    layer=record.name,
                    method=name,
                    ranks=ranks,
                    cost=cost,
                    error=error,
                    similarity=judge.similarity(sweep, ranks),
                    sensitivity=sensitivity,
                )
            )
    return candidates


class _Judge:
    """Compares the output of replacements with the output of one layer."""

    def __init__(
        self, layer: keras.Layer, kernel: Matrix, moments: Moments, metric: Metric
    ) -> None:
        self.kernel = kernel
        self._metric = metric
        self._feature_map = _feature_map_of(layer)
        self._own = kernel.T @ methods.base.times_second(moments.second, kernel)
        self._original = self._feature_map(moments.rows @ kernel)
        self._gradient = moments.gradient

    def errors(self, sweep: Sweep, ranks: tuple[int, ...]) -> tuple[float, float]:
        """Relative output error, and predicted loss.

        The loss is `tr(F D^T S D) / 2`, a second-order bound: `F` and `S` are sums over
        positions, and the errors of a map's positions are taken to add up (Cauchy-Schwarz).
        """
        cross, replaced = sweep.output_moments(ranks)
        difference = self._own - cross - cross.T + replaced
        error = max(float(np.trace(difference)), 0.0) / max(float(np.trace(self._own)), 1e-300)
        if self._gradient is None:
            return error, error
        return error, max(float(np.vdot(self._gradient, difference)) / 2, 0.0)

    def similarity(self, sweep: Sweep, ranks: tuple[int, ...]) -> float:
        return self._metric(self._original, self._feature_map(sweep.outputs(ranks)))


def _feature_map_of(layer: keras.Layer) -> Callable[[Matrix], Matrix]:
    """Adds the layer's bias and activation to `(rows, channels)` outputs."""
    bias = keras.ops.convert_to_numpy(layer.bias) if layer.use_bias else None
    linear = layer.activation is keras.activations.linear

    def feature_map(outputs: Matrix) -> Matrix:
        if bias is not None:
            outputs = outputs + bias
        if linear:
            return outputs
        return np.asarray(keras.ops.convert_to_numpy(layer.activation(outputs)), np.float64)

    return feature_map
