"""One file per factorization; `base` holds what they share and the registry."""

from lrf_core.methods import cp, qr, svd, t3f, tensor_train, tucker
from lrf_core.methods.base import (
    Decomposition,
    Geometry,
    Layout,
    Method,
    Moments,
    chosen,
    get,
    names,
    register,
)

for _method in (tucker.METHOD, cp.METHOD, tensor_train.METHOD, svd.METHOD, qr.METHOD, t3f.METHOD):
    register(_method)

__all__ = [
    "Decomposition",
    "Geometry",
    "Layout",
    "Method",
    "Moments",
    "chosen",
    "get",
    "names",
    "register",
]
