"""Which positions of a layer's feature maps are summed, and which rows are kept.

Everything is drawn by generators of the layer's own, sample by sample, so that what is drawn does
not depend on the batches that samples come in, nor on which other layers are asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrf_core.calibration.patches import Indices, PatchTable

# Rows kept per layer, for similarities of feature maps.
KEPT_ROWS = 1024


@dataclass(frozen=True)
class CallPositions:
    """Positions of one call of a layer in one batch; they count on through its samples.

    Attributes:
        table: of the call.
        summed: `(s,)`; the same number of each sample.
        weight: how many positions each of them stands for.
        kept: `(m,)`.
        slots: `(m,)`, the places of the kept ones among all the rows kept of the layer.
    """

    table: PatchTable
    summed: Indices
    weight: float
    kept: Indices
    slots: Indices

    def row_indices(self) -> NDArray[np.int32]:
        """What the summed, then the kept positions see: `(s + m, window)`, as in PatchTable."""
        return self.table.indices_in_batch(np.concatenate([self.summed, self.kept]))


class LayerPositions:
    """Draws the positions of one layer, batch after batch, in the order of the samples.

    Rows are kept uniformly over all positions of all samples (of all calls), without
    replacement; where neighbourhoods are wanted, uniformly over all windows of `side x side`
    positions.

    Args:
        path: of the layer.
        tables: one for each call of the layer.
        samples: how many there will be.
        per_sample: positions to sum of each sample and call, at most.
        side: of the windows; 1 keeps single positions. Layers that `has_windows` denies keep
            single positions too.
    """

    def __init__(
        self,
        path: str,
        tables: Sequence[PatchTable],
        samples: int,
        per_sample: int,
        *,
        seed: int,
        side: int = 1,
    ) -> None:
        key = [seed, zlib.crc32(path.encode())]
        self._tables = tables
        self._per_sample = per_sample
        self._rngs = [np.random.default_rng([*key, 1 + call]) for call in range(len(tables))]
        self._side = side if has_windows([table.outputs for table in tables], side) else 1
        # A unit is what is kept as a whole: a window, or a position.
        self._units = [_unit_count(table, self._side) for table in tables]
        self._units_of_sample = sum(self._units)
        total = samples * self._units_of_sample
        count = min(KEPT_ROWS // self._side**2, total)
        chosen = np.random.default_rng([*key, 0]).choice(total, count, replace=False, shuffle=False)
        self._chosen = np.sort(chosen)

    @property
    def rows_kept(self) -> int:
        """How many rows are kept in the end."""
        return len(self._chosen) * self._side**2

    def of_batch(self, start: int, size: int) -> list[CallPositions]:
        """For each call, in the batch of samples from `start` on."""
        first, last = np.searchsorted(
            self._chosen, [start * self._units_of_sample, (start + size) * self._units_of_sample]
        )
        samples, units = np.divmod(self._chosen[first:last], self._units_of_sample)
        slots = np.arange(first, last)
        found = []
        begin = 0
        for table, rng, count in zip(self._tables, self._rngs, self._units, strict=True):
            own = (units >= begin) & (units < begin + count)
            within = _positions_of_units(table, units[own] - begin, self._side)
            kept = (samples[own] - start)[:, None] * table.positions + within
            slots_of_rows = slots[own][:, None] * self._side**2 + np.arange(self._side**2)
            summed = drawn(table, size, self._per_sample, rng)
            found.append(
                CallPositions(
                    table,
                    summed,
                    size * table.positions / max(len(summed), 1),
                    kept.reshape(-1),
                    slots_of_rows.reshape(-1),
                )
            )
            begin += count
        return found


def drawn(table: PatchTable, samples: int, per_sample: int, rng: np.random.Generator) -> Indices:
    """At most `per_sample` positions of each sample, in order, counting on through the samples."""
    positions = table.positions
    if per_sample >= positions:
        return np.arange(samples * positions)
    chosen = [
        sample * positions + np.sort(rng.choice(positions, per_sample, replace=False))
        for sample in range(samples)
    ]
    return np.concatenate(chosen)


def has_windows(maps: Sequence[Sequence[int]], side: int) -> bool:
    """Whether feature maps of these sizes (one for each call) have windows of `side x side`."""
    return all(len(sizes) == 2 and min(sizes) >= side for sizes in maps)


def _unit_count(table: PatchTable, side: int) -> int:
    if side == 1:
        return table.positions
    height, width = table.outputs
    return (height - side + 1) * (width - side + 1)


def _positions_of_units(table: PatchTable, units: Indices, side: int) -> Indices:
    """`(units, side * side)`, row-major within each window."""
    if side == 1:
        return units[:, None]
    width = table.outputs[1]
    top, left = np.divmod(units, width - side + 1)
    down, right = np.divmod(np.arange(side * side), side)
    return (top[:, None] + down) * width + left[:, None] + right
