"""Score every candidate of one layer from its moments, without running the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Candidate, LayerRecord
from lrf_core.calibration.positions import has_windows
from lrf_core.exploration.feature_map import FeatureMap, feature_map_of
from lrf_core.exploration.parallel import one_blas_thread
from lrf_core.methods import Decomposition, Layout, Moments
from lrf_core.methods.base import Matrix, Ranks
from lrf_core.methods.weights import FitTo, decompose
from lrf_core.models.inventory import geometry_of, kernel_matrix
from lrf_core.similarity import Similarity, get

# Numbers in the sampled rows of a layer above which every second row is judged: maps of many
# channels are known well enough from fewer positions.
_MANY = 2**21

_logger = logging.getLogger("lrf")


def score_layer(
    record: LayerRecord,
    layer: keras.Layer,
    moments: Moments,
    *,
    per_mode: int,
    similarity: str,
    feature_map: FeatureMap | None = None,
    fit_to: FitTo = "data",
) -> list[Candidate]:
    """All candidates of one layer that have fewer parameters than it has.

    Args:
        record: the layer in the Analysis; its `methods` compete.
        per_mode: ranks offered per mode, at most.
        similarity: name of a metric; see `metric_for`.
        feature_map: what the metric is taken on, see `feature_maps`; by default the layer's
            output after its own bias and activation.
        fit_to: what factors are fitted to, see `decompose`.
    """
    geometry = geometry_of(record)
    with one_blas_thread():
        judge = Judge.of(record, layer, moments, similarity, feature_map)
        return [
            judge.candidate(record.name, name, layout, decomposition, ranks)
            for name in record.methods
            for layout in methods.get(name).layouts(geometry)
            for decomposition, ranks in _truncations(layout, judge, per_mode, fit_to)
        ]


def metric_for(record: LayerRecord, similarity: str) -> Similarity:
    """The metric of this name, or its stand-in where it needs windows that the maps do not have."""
    metric = get(similarity)
    if metric.window == 1 or has_windows([call.outputs for call in record.calls], metric.window):
        return metric
    return get(metric.otherwise)


def log_stand_ins(records: Sequence[LayerRecord], similarity: str) -> None:
    """Say in one line which layers are judged by another metric than the one asked for."""
    metric = get(similarity)
    others = [r.name for r in records if metric_for(r, similarity).name != similarity]
    if others:
        _logger.warning(
            "%s needs 2-D feature maps of %dx%d or more; judged by %s instead: %s",
            similarity,
            metric.window,
            metric.window,
            metric.otherwise,
            ", ".join(others),
        )


def _truncations(
    layout: Layout, judge: Judge, per_mode: int, fit_to: FitTo
) -> Iterator[tuple[Decomposition, Ranks]]:
    """The ranks at which the layout has fewer parameters than the layer, if any."""
    smaller = [
        ranks
        for ranks in layout.candidate_ranks(per_mode)
        if layout.cost(ranks).params < layout.geometry.cost.params
    ]
    if smaller:
        decomposition = decompose(layout, judge.kernel, judge.moments, fit_to)
        yield from ((decomposition, ranks) for ranks in smaller)


class Judge:
    """Compares the output of replacements with the output of one layer.

    Attributes:
        kernel: of the layer, `(inputs, outputs)`.
        moments: with the rows that similarities are taken on.
        every: of the rows that were given, one of so many is among them.
    """

    @classmethod
    def of(
        cls,
        record: LayerRecord,
        layer: keras.Layer,
        moments: Moments,
        similarity: str,
        feature_map: FeatureMap | None = None,
    ) -> Judge:
        """For one layer; the arguments are those of `score_layer`."""
        metric = metric_for(record, similarity)
        every = 2 if metric.window == 1 and moments.rows.size > _MANY else 1
        moments = replace(moments, rows=moments.rows[::every])
        feature_map = feature_map or feature_map_of(layer)
        return cls(feature_map, kernel_matrix(layer), moments, metric, every)

    def __init__(
        self,
        feature_map: FeatureMap,
        kernel: Matrix,
        moments: Moments,
        metric: Similarity,
        every: int = 1,
    ) -> None:
        self.kernel = kernel
        self.moments = moments
        self.every = every
        self._compare = metric.compare
        self._feature_map = feature_map
        self._own = moments.quadratic(kernel)
        self._original = self._feature_map(moments.rows @ kernel)
        self._gradient = moments.gradient

    def candidate(
        self, layer: str, method: str, layout: Layout, decomposition: Decomposition, ranks: Ranks
    ) -> Candidate:
        error, sensitivity = self.errors(decomposition, ranks)
        return Candidate(
            layer=layer,
            method=method,
            form=layout.name,
            ranks=ranks,
            cost=layout.cost(ranks),
            error=error,
            similarity=self.similarity(decomposition.outputs(ranks)),
            sensitivity=sensitivity,
            has_gradient=self._gradient is not None,
            note=decomposition.note(ranks),
        )

    @property
    def worst_loss(self) -> float:
        """The sensitivity of a layer that answers nothing."""
        if self._gradient is None:
            return 1.0
        return float(np.vdot(self._gradient, self._own)) / 2

    def errors(self, decomposition: Decomposition, ranks: Ranks) -> tuple[float, float]:
        """Relative output error, and predicted loss.

        The loss is `tr(F D^T S D) / 2`, a second-order bound: `F` and `S` are sums over
        positions, and the errors of a map's positions are taken to add up (Cauchy-Schwarz).
        """
        plain, weighted = decomposition.explained_energy(ranks)
        energy = float(np.trace(self._own))
        # Nothing comes out of a layer that sees zeros only, whatever its factors.
        error = max(energy - plain, 0.0) / energy if energy > 0 else 0.0
        if self._gradient is None:
            return error, error
        return error, max(self.worst_loss - weighted / 2, 0.0)

    def similarity(self, outputs: Matrix) -> float:
        """Of the layer's feature map and that of a replacement.

        Args:
            outputs: of the replacement on the rows of `moments`, `(rows, outputs)`.
        """
        return self._compare(self._original, self._feature_map(outputs))
