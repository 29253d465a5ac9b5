"""One file per factorization; `base` holds what they share and the registry."""

from lrf_core.methods import svd, tucker
from lrf_core.methods.base import Form, Geometry, Method, Moments, Sweep, get, names, register

for _method in (tucker.METHOD, svd.METHOD):
    register(_method)

__all__ = ["Form", "Geometry", "Method", "Moments", "Sweep", "get", "names", "register"]
