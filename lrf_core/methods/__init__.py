"""One file per factorization; `base` holds what they share and the registry."""

from lrf_core.methods import svd, tucker
from lrf_core.methods.base import Geometry, Method, Moments, Sweep, get, names, register

register(tucker.Tucker())
register(svd.Svd())

__all__ = ["Geometry", "Method", "Moments", "Sweep", "get", "names", "register"]
