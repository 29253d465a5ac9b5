"""The kinds of model registries that there are, by how their addresses begin."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from lrf_core.redaction import one_line
from lrf_core.registry.base import Registry, RegistryError
from lrf_core.registry.requests import RequestSource
from lrf_core.storage import Store

_ADDRESS = re.compile(r"([a-z][a-z0-9]*)\+(https?://.+)", re.IGNORECASE)


@dataclass(frozen=True)
class RegistryKind:
    """A kind of registry, at `<name>+https://host:port`.

    Attributes:
        open: from an address and the store of the releases, if that is known, to the registry.
            Raises ImportError if its client is not installed.
        open_requests: from an address to its side that requests are read from; None if its
            versions cannot request compression.
    """

    open: Callable[[str, Store | None], Registry]
    open_requests: Callable[[str], RequestSource] | None = None


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
    name, address = _parsed(uri)
    with _client_of(name):
        return _kinds[name].open(address, store)


def open_requests(uri: str) -> RequestSource:
    """The requests for compression that the versions in a registry hold.

    Args:
        uri: as for `open_registry`, except `bucket`.

    Raises:
        RegistryError: as `open_registry`, or versions of this kind cannot request compression.
    """
    name, address = _parsed(uri)
    opener = _kinds[name].open_requests
    if opener is None:
        raise RegistryError(
            f"registry {one_line(uri, 200)!r} holds no versions that could request compression"
        )
    with _client_of(name):
        return opener(address)


def register_kind(name: str, kind: RegistryKind) -> None:
    """Let `<name>+https://host` name registries of another kind.

    Args:
        name: lower-case letters and digits.

    Raises:
        ValueError: the name is taken.
    """
    if name in _kinds or name == "bucket":
        raise ValueError(f"registries at {name}+https:// are of another kind already")
    _kinds[name] = kind


def _parsed(uri: str) -> tuple[str, str]:
    """The kind and the address. Raises RegistryError."""
    # Before the address is shown anywhere: it may carry a password by mistake.
    if "@" in uri or "?" in uri or "#" in uri:
        raise RegistryError(
            "the registry's address holds a user name, a password or a query; give credentials in "
            "the environment (KUBEFLOW_REGISTRY_TOKEN, MLFLOW_TRACKING_TOKEN) instead"
        )
    known = " or ".join(["bucket", *(f"{name}+https://host:port" for name in _kinds)])
    found = _ADDRESS.fullmatch(uri)
    if not found or found[1].lower() not in _kinds:
        raise RegistryError(f"registry {one_line(uri, 200)!r} is of an unknown kind; use {known}")
    try:
        parts = urlsplit(found[2])
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise RegistryError(f"registry {one_line(uri, 200)!r} is no usable address; use {known}")
    return found[1].lower(), found[2].rstrip("/")


def _kubeflow(address: str, store: Store | None) -> Registry:
    with _root_logger_restored():
        from lrf_core.registry.kubeflow import KubeflowRegistry
    return KubeflowRegistry.open(address)


def _kubeflow_requests(address: str) -> RequestSource:
    with _root_logger_restored():
        from lrf_core.registry.kubeflow import KubeflowRegistry
        from lrf_core.registry.kubeflow_requests import KubeflowRequests
    return KubeflowRequests(KubeflowRegistry.open(address))


def _mlflow(address: str, store: Store | None) -> Registry:
    from lrf_core.registry.mlflow import MlflowRegistry

    return MlflowRegistry.open(address, store)


def _mlflow_requests(address: str) -> RequestSource:
    from lrf_core.registry.mlflow import MlflowRegistry
    from lrf_core.registry.mlflow_requests import MlflowRequests

    return MlflowRequests(MlflowRegistry.open(address, None))


_kinds = {
    "kubeflow": RegistryKind(_kubeflow, _kubeflow_requests),
    "mlflow": RegistryKind(_mlflow, _mlflow_requests),
}


@contextmanager
def _root_logger_restored() -> Iterator[None]:
    """Undo what Kubeflow's client does to the root logger when it is imported."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _client_of(name: str) -> Iterator[None]:
    """Explain a client that is not installed."""
    try:
        yield
    except ImportError as error:
        raise RegistryError(
            f"registry kind '{name}' needs its client, which cannot be imported ({error}); run "
            f"pip install 'lrf[{name}]'"
        ) from None
