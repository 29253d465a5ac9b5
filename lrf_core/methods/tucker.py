"""Tucker decomposition over the two channel modes (Tucker-2), for Conv1D, Conv2D and Conv3D.

Chain: Conv 1x1 (Cin > r1), Conv k (r1 > r2; strides, padding, dilation), Conv 1x1 (r2 > Cout)
(Kim et al., arXiv 1511.06530). A mode at full rank has no 1x1 convolution, which gives Tucker-1 on
the other mode. Nested in both ranks.
"""

from __future__ import annotations

from lrf_core.methods.base import Geometry, Layout, Method
from lrf_core.methods.bottleneck_chain import BottleneckChain, fits_in_memory

# Ranks offered per mode, at most.
_LADDER = 256


def _layouts(geometry: Geometry) -> list[Layout]:
    """Ranks: `(r1, r2)`, of the input and the output channels."""
    if geometry.window == 1 or geometry.inputs == geometry.outputs == 1:
        return []
    axes = tuple(range(len(geometry.kernel_shape) - 2))
    return (
        [BottleneckChain(geometry, METHOD.name, (axes,), _LADDER)]
        if fits_in_memory(geometry)
        else []
    )


METHOD = Method("tucker", _layouts, exploring_cost=(1.1e-4, 1.22, 0.13), has_vbmf_ranks=True)
