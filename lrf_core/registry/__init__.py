"""Model registries: the store itself, Kubeflow Model Registry, MLflow."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from lrf_core.redaction import one_line
from lrf_core.registry.base import (
    Registration,
    Registry,
    RegistryError,
    UnreachableRegistryError,
)
from lrf_core.storage import Store

__all__ = [
    "Registration",
    "Registry",
    "RegistryError",
    "UnreachableRegistryError",
    "open_registry",
]

_KINDS = "bucket, kubeflow+https://host:port or mlflow+https://host:port"
_ADDRESS = re.compile(r"(kubeflow|mlflow)\+(https?://.+)", re.IGNORECASE)


def open_registry(uri: str, store: Store | None = None) -> Registry:
    """The model registry at an address. No request is made yet; `Registry.check` makes one.

    Args:
        uri: `bucket`, the store itself; `kubeflow+https://host:port` or `mlflow+https://host:port`
            (or http). Tokens and keys come from the environment or mounted files.
        store: where the releases are: `bucket` needs it; `mlflow` copies reports from it.

    Raises:
        RegistryError: no such kind of registry, a wrong address, or the client is not installed.
    """
    if uri == "bucket":
        from lrf_core.registry.bucket import BucketRegistry

        if store is None:
            raise RegistryError("registry 'bucket' needs the store of the releases; name the store")
        return BucketRegistry(store)
    # Said before the address is shown anywhere: it may carry a password by mistake.
    if "@" in uri or "?" in uri or "#" in uri:
        raise RegistryError(
            "the registry's address holds a user name, a password or a query; give credentials in "
            "the environment (KUBEFLOW_REGISTRY_TOKEN, MLFLOW_TRACKING_TOKEN) instead"
        )
    found = _ADDRESS.fullmatch(uri)
    if not found:
        raise RegistryError(f"registry {one_line(uri, 200)!r} is of an unknown kind; use {_KINDS}")
    kind, address = found[1].lower(), _checked(found[2], uri)
    if kind == "mlflow":
        return _open_mlflow(address, store)
    return _open_kubeflow(address)


def _checked(address: str, uri: str) -> str:
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise RegistryError(f"registry {one_line(uri, 200)!r} is no usable address; write {_KINDS}")
    return address.rstrip("/")


def _open_mlflow(address: str, store: Store | None) -> Registry:
    try:
        from lrf_core.registry.mlflow import MlflowRegistry
    except ImportError as error:
        raise _missing("mlflow", error) from None
    return MlflowRegistry.open(address, store)


def _open_kubeflow(address: str) -> Registry:
    try:
        with _root_logger_kept():
            from lrf_core.registry.kubeflow import KubeflowRegistry
    except ImportError as error:
        raise _missing("kubeflow", error) from None
    return KubeflowRegistry.open(address)


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """The client configures the root logger when it is imported; that is not its business."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _missing(extra: str, error: ImportError) -> RegistryError:
    return RegistryError(
        f"registry kind '{extra}' needs its client, which cannot be imported ({error}); run "
        f"pip install 'lrf[{extra}]'"
    )
