"""What was fetched from object storage, kept on this machine by the digest of its content.

`files/<sha256>/<name>` is one object, `trees/<identity>/content` what lies below a prefix or in an
archive, with the digests of its files beside it. Both are compared with their digests each time
they are used, and moved to their place whole: processes may share the folder, and be killed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from lrf_core import telemetry
from lrf_core.errors import LrfError, StorageError
from lrf_core.files.scratch import folder_beside
from lrf_core.storage.base import ObjectInfo, Store, sha256_of
from lrf_core.storage.content import listed

_FOLDER = "LRF_CACHE"
_CONTENT, _DIGESTS = "content", "digests.json"
_AT_ONCE = 16


def cache_folder() -> Path:
    """`LRF_CACHE`, else `lrf` in the user's cache folder. Raises StorageError if there is none."""
    given = os.environ.get(_FOLDER)
    if given:
        return Path(given).absolute()
    try:
        return platformdirs.user_cache_path("lrf", appauthor=False)
    except RuntimeError:
        raise StorageError(
            f"this user has no home folder to keep fetched files in; set HOME, or {_FOLDER} to a "
            "folder for them"
        ) from None


def cached_file(store: Store, key: str) -> Path | None:
    """A file with the content of an object; None if there is no such object.

    Raises:
        StorageError: the store cannot be read, or the cache not be written.
    """
    info = store.stat(key)
    if info is None:
        return None
    name, noted = key.rpartition("/")[2], _note(store.url(key), info)
    with _writing():
        known = info.sha256 or _noted(noted)
        if known:
            path = _place(known, name)
            if path.is_file() and sha256_of(path).sha256 == known:
                telemetry.count_cached("inputs", 1, 0)
                return path
        telemetry.count_cached("inputs", 0, 1)
        return _fetch(store, key, name, noted)


def cached_tree(identity: str, fill: Callable[[Path], None]) -> Path:
    """A folder with the content that `fill` gives it; filled once, and again where it is damaged.

    Args:
        identity: names the content; a file name.
        fill: writes into an empty folder.

    Raises:
        StorageError: the cache cannot be written.
        What `fill` raises.
    """
    trees = cache_folder() / "trees"
    place = trees / identity
    sound = _is_sound(place)
    telemetry.count_cached("inputs", int(sound), int(not sound))
    if sound:
        return place / _CONTENT
    with _writing(), folder_beside(trees) as scratch:
        new = scratch / "new"
        (new / _CONTENT).mkdir(parents=True)
        fill(new / _CONTENT)
        (new / _DIGESTS).write_text(json.dumps(_digests(new / _CONTENT)))
        _move_in(new, place, scratch / "damaged")
    return place / _CONTENT


def cached_prefix(store: Store, prefix: str) -> Path | None:
    """A folder with all that lies below a prefix; None if that is nothing.

    Args:
        prefix: ends with "/"; or empty, for the whole store.

    Raises:
        StorageError: the store cannot be read, or the cache not be written.
    """
    keys = sorted(store.list(prefix))
    if not keys:
        return None
    listing = listed(store, keys)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        text = json.dumps([store.url(), prefix, listing])

        def fill(folder: Path) -> None:
            def fetch(key: str) -> None:
                store.get_file(key, folder / key.removeprefix(prefix))

            for _ in pool.map(fetch, [key for key, _, _ in listing]):
                pass

        return cached_tree(hashlib.sha256(text.encode()).hexdigest(), fill)


@contextmanager
def named(source: str, path: Path | None) -> Iterator[None]:
    """In errors, call a file of the cache what the user calls it."""
    try:
        yield
    except LrfError as error:
        if path is None or str(path) == source:
            raise
        raise type(error)(str(error).replace(str(path), source)) from None


def _fetch(store: Store, key: str, name: str, noted: Path) -> Path:
    files = cache_folder() / "files"
    with folder_beside(files) as scratch:
        fetched = scratch / name
        store.get_file(key, fetched)
        digest = sha256_of(fetched).sha256 or ""
        path = _place(digest, name)
        path.parent.mkdir(exist_ok=True)
        fetched.replace(path)
        noted.parent.mkdir(exist_ok=True)
        note = scratch / "note"
        note.write_text(digest)
        note.replace(noted)
    return path


def _place(digest: str, name: str) -> Path:
    return cache_folder() / "files" / digest / name


def _note(url: str, info: ObjectInfo) -> Path:
    """Where the digest is kept of an object that another program wrote without one."""
    text = json.dumps([url, info.tag, info.size])
    return cache_folder() / "notes" / hashlib.sha256(text.encode()).hexdigest()


def _noted(note: Path) -> str | None:
    return note.read_text() if note.is_file() else None


def _move_in(new: Path, place: Path, aside: Path) -> None:
    if place.exists() and not _is_sound(place):
        place.rename(aside)
    try:
        new.rename(place)
    except OSError:
        if not _is_sound(place):  # another process was first, which is as good
            raise


def _is_sound(place: Path) -> bool:
    try:
        known = json.loads((place / _DIGESTS).read_text())
    except (OSError, ValueError):
        return False
    return bool(known == _digests(place / _CONTENT))


def _digests(folder: Path) -> dict[str, str | None]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        found = pool.map(sha256_of, paths)
        return {
            path.relative_to(folder).as_posix(): info.sha256
            for path, info in zip(paths, found, strict=True)
        }


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write the cache {cache_folder()}: {error.strerror or error}; make room, or "
            f"name another folder in {_FOLDER}"
        ) from None
