"""Model registries: the store itself, Kubeflow Model Registry, MLflow."""

from lrf_core.registry.base import (
    Registration,
    Registry,
    RegistryError,
    UnreachableRegistryError,
)
from lrf_core.registry.kinds import (
    RegistryKind,
    open_registry,
    open_requests,
    register_kind,
)

__all__ = [
    "Registration",
    "Registry",
    "RegistryError",
    "RegistryKind",
    "UnreachableRegistryError",
    "open_registry",
    "open_requests",
    "register_kind",
]
