"""Where the file of a model is that asks, and whether it is another one than before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from lrf_core.artifacts.record import digest_of
from lrf_core.storage import MissingObjectError, Store, open_store
from pipelines.controller.sources.base import Asked, Source, is_model

_File = TypeVar("_File", str, Path)


class UnusableAskError(Exception):
    """A model asks for what cannot be done; the message says why."""


@dataclass(frozen=True)
class Located:
    """A model that can be fetched.

    Attributes:
        fingerprint: changes with the model's content and with what is asked for.
        fetch: writes the file into a folder and returns it; its suffix is that of the model.
            Raises UnusableAskError, LrfError.
    """

    fingerprint: str
    fetch: Callable[[Path], Path]


def located(source: Source, asked: Asked) -> Located:
    """Find the model of a request, without reading it.

    Raises:
        UnusableAskError: there is none, or its address cannot be used.
        StorageError: its store cannot be asked.
    """
    if asked.problem:
        raise UnusableAskError(asked.problem)
    if source.fetches(asked.model):
        # A registered version never changes.
        return Located(
            digest_of([asked.model, asked.spec, asked.name]),
            lambda folder: _fetched(source, asked.model, folder),
        )
    store, key = _stored(asked.model)
    mark = asked.mark or _mark(store, key, asked.model)
    fingerprint = digest_of([store.url(key), mark, asked.spec, asked.name])
    return Located(fingerprint, lambda folder: _read(store, key, folder))


def _mark(store: Store, key: str, address: str) -> str:
    info = store.stat(key)
    if info is None:
        raise UnusableAskError(f"nothing at {address}; upload the model, or correct its address")
    return f"{info.size} {info.tag or info.sha256}"


def _read(store: Store, key: str, folder: Path) -> Path:
    file = folder / f"model{Path(key).suffix}"
    try:
        store.get_file(key, file)
    except MissingObjectError as error:
        raise UnusableAskError(str(error)) from None
    return file


def _fetched(source: Source, model: str, folder: Path) -> Path:
    source.fetch(model, folder)
    files = (file for file in folder.rglob("*") if file.is_file())
    return _only([file for file in files if is_model(file.name)], model)


def _stored(address: str) -> tuple[Store, str]:
    """The store and key of a model file, or of the only one in a folder."""
    parts = urlsplit(address)
    if parts.scheme in ("s3", "minio") and parts.netloc and "@" not in parts.netloc:
        store, key = open_store(f"{parts.scheme}://{parts.netloc}"), parts.path.strip("/")
    elif parts.scheme == "file" and not parts.netloc:
        folder, _, key = unquote(parts.path).rstrip("/").rpartition("/")
        store = open_store(folder or "/")
    else:
        raise UnusableAskError(
            f"the model's address {address.split('@')[-1]!r:.200} cannot be read; register one in "
            "s3://bucket/key, or name the file in the property lrf.model"
        )
    if is_model(key):
        return store, key
    return store, _only([each for each in store.list(f"{key}/") if is_model(each)], address)


def _only(found: list[_File], address: str) -> _File:
    if len(found) != 1:
        raise UnusableAskError(
            f"{address} holds {len(found)} model files where one is needed; name a .keras or .h5 "
            "file"
        )
    return found[0]
