"""What calibration may hold at once: the batch size, and the layers of one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrf_core.artifacts import LayerRecord
from lrf_core.calibration.positions import KEPT_ROWS
from lrf_core.calibration.second_moment import rows_at_once
from lrf_core.errors import SpecError

GIB = 2**30
# The budget when nothing else is said.
DEFAULT_MEMORY_BYTES = 4 * GIB

# A batch's feature maps may take this much, or this share of the budget if that is less.
_FEATURE_MAP_BYTES = 448 * 2**20
_FEATURE_MAP_SHARE = 4
_MOST_AT_ONCE = 64
# What scoring a layer needs beside its moments, in multiples of them.
_ARITHMETIC = 3


def batch_size_for(bytes_per_sample: int, memory_bytes: int) -> int:
    """Samples whose feature maps fit together: from 1 to 64.

    Args:
        bytes_per_sample: of all feature maps of one sample.
        memory_bytes: the budget of calibration.
    """
    allowed = min(_FEATURE_MAP_BYTES, memory_bytes // _FEATURE_MAP_SHARE)
    return min(max(allowed // max(bytes_per_sample, 1), 1), _MOST_AT_ONCE)


def bytes_of_moments(record: LayerRecord, samples: int) -> int:
    """What the moments of a layer take while they are collected on so many samples."""
    width, outputs = math.prod(record.kernel_shape[:-1]), record.kernel_shape[-1]
    rows = samples * sum(math.prod(call.outputs) for call in record.calls)
    kept = 4 * min(KEPT_ROWS, rows) * width
    gradient = 8 * outputs**2 + 4 * outputs * min(rows, rows_at_once(outputs))
    return kept + _bytes_of_second_moment(width, rows) + gradient


def bytes_of_arithmetic(record: LayerRecord, samples: int) -> int:
    """What scoring a layer takes beside its moments."""
    return _ARITHMETIC * bytes_of_moments(record, samples)


def groups_that_fit(
    records: Sequence[LayerRecord], samples: int, memory_bytes: int
) -> list[tuple[LayerRecord, ...]]:
    """Layers in their order, as many in each group as fit the budget.

    A group's moments, and three times the largest of them for the arithmetic that follows, stay
    within `memory_bytes`.

    Raises:
        SpecError: a layer does not fit even alone.
    """
    groups: list[list[LayerRecord]] = []
    for record in records:
        _check_fits_alone(record, samples, memory_bytes)
        if groups and _bytes_needed([*groups[-1], record], samples) <= memory_bytes:
            groups[-1].append(record)
        else:
            groups.append([record])
    return [tuple(group) for group in groups]


def _bytes_needed(group: Sequence[LayerRecord], samples: int) -> int:
    sizes = [bytes_of_moments(record, samples) for record in group]
    return sum(sizes) + _ARITHMETIC * max(sizes)


def _check_fits_alone(record: LayerRecord, samples: int, memory_bytes: int) -> None:
    needed = _bytes_needed([record], samples)
    if needed > memory_bytes:
        width = math.prod(record.kernel_shape[:-1])
        enough = math.ceil(100 * needed / GIB) / 100
        raise SpecError(
            f"layer '{record.name}' ({width:,} inputs, {record.kernel_shape[-1]:,} outputs) needs "
            f"{enough:.2f} GiB to be explored, explore.memory_gib allows "
            f"{memory_bytes / GIB:.3g}; set it to {enough:.2f} or more, or leave the layer out "
            "(explore.exclude)"
        )


def _bytes_of_second_moment(width: int, rows: int) -> int:
    waiting = min(rows, rows_at_once(width))
    if waiting < width:  # the root, in float32 and then in float64
        return 12 * width * waiting
    return 8 * width**2 + 4 * width * waiting
