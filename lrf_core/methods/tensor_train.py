"""Tensor-Train of the modes Cin, space, Cout, for Conv1D, Conv2D and Conv3D.

Chain: Conv 1x1 (Cin > r1), one convolution for each spatial axis (r1 > r2 > ...), Conv 1x1 (> Cout)
(Oseledets 2011; Garipov et al., arXiv 1611.03214, with the spatial modes kept). With a single
spatial axis this is Tucker-2.
"""

from __future__ import annotations

import math

from lrf_core.methods.base import Geometry, Layout, Method
from lrf_core.methods.bottleneck_chain import BottleneckChain, fits_in_memory

# Ranks offered per mode, at most: they multiply. Fewer for kernels of many weights.
_LADDER = 8
_LADDER_OF_WIDE = 6
_WIDE = 2**17
_LADDER_OF_WIDEST = 4
_WIDEST = 2**20


def _layouts(geometry: Geometry) -> list[Layout]:
    """Ranks: `(r1, r2, ...)`, from the input channels to the output channels."""
    if geometry.window == 1 or geometry.inputs == geometry.outputs == 1:
        return []
    spatial = geometry.kernel_shape[:-2]
    longer = [axis for axis, size in enumerate(spatial) if size > 1]
    # An axis of window 1 may be strided: the last convolution does it.
    rest = tuple(axis for axis, size in enumerate(spatial) if size == 1)
    groups = (*((axis,) for axis in longer[:-1]), tuple(sorted((longer[-1], *rest))))
    if not fits_in_memory(geometry):
        return []
    weights = math.prod(geometry.kernel_shape)
    wide = weights >= _WIDE
    ladder = _LADDER_OF_WIDEST if weights >= _WIDEST else _LADDER_OF_WIDE if wide else _LADDER
    return [BottleneckChain(geometry, METHOD.name, groups, ladder, encoded_only=wide)]


METHOD = Method("tensor_train", _layouts, exploring_cost=(5.9e-5, 1.28, 0.28))
