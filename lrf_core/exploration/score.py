"""Score every candidate of one layer from its moments, without running the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Candidate, LayerRecord
from lrf_core.exploration.similarity import METRICS, Metric
from lrf_core.methods import Form, Moments, Sweep
from lrf_core.methods.base import Matrix, Ranks
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
    geometry = geometry_of(record)
    judge = _Judge(layer, kernel_matrix(layer), moments, METRICS[similarity])
    return [
        judge.candidate(record.name, name, form, sweep, ranks)
        for name in record.methods
        for form in methods.get(name).forms(geometry)
        for sweep, ranks in _truncations(form, judge.kernel, moments, per_mode)
    ]


def _truncations(
    form: Form, kernel: Matrix, moments: Moments, per_mode: int
) -> Iterator[tuple[Sweep, Ranks]]:
    """The ranks at which the form has fewer parameters than the layer, if any."""
    smaller = [
        ranks
        for ranks in form.candidate_ranks(per_mode)
        if form.cost(ranks).params < form.geometry.cost.params
    ]
    if smaller:
        sweep = form.sweep(kernel, moments)
        yield from ((sweep, ranks) for ranks in smaller)


class _Judge:
    """Compares the output of replacements with the output of one layer."""

    def __init__(
        self, layer: keras.Layer, kernel: Matrix, moments: Moments, metric: Metric
    ) -> None:
        self.kernel = kernel
        self._metric = metric
        self._feature_map = _feature_map_of(layer)
        self._own = moments.quadratic(kernel)
        self._original = self._feature_map(moments.rows @ kernel)
        self._gradient = moments.gradient

    def candidate(
        self, layer: str, method: str, form: Form, sweep: Sweep, ranks: Ranks
    ) -> Candidate:
        error, sensitivity = self.errors(sweep, ranks)
        return Candidate(
            layer=layer,
            method=method,
            form=form.name,
            ranks=ranks,
            cost=form.cost(ranks),
            error=error,
            similarity=self.similarity(sweep, ranks),
            sensitivity=sensitivity,
            note=sweep.note(ranks),
        )

    def errors(self, sweep: Sweep, ranks: Ranks) -> tuple[float, float]:
        """Relative output error, and predicted loss.

        The loss is `tr(F D^T S D) / 2`, a second-order bound: `F` and `S` are sums over
        positions, and the errors of a map's positions are taken to add up (Cauchy-Schwarz).
        """
        plain, weighted = sweep.explained(ranks)
        own = float(np.trace(self._own))
        error = max(own - plain, 0.0) / max(own, 1e-300)
        if self._gradient is None:
            return error, error
        loss = float(np.vdot(self._gradient, self._own)) - weighted
        return error, max(loss / 2, 0.0)

    def similarity(self, sweep: Sweep, ranks: Ranks) -> float:
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
