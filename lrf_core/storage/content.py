"""What an input contains, told without fetching it: digests or tags that the store keeps."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lrf_core.storage.base import Store

# Key, the sha256 (else the tag) of what is under it, and its size in bytes.
Listing = list[tuple[str, str | None, int]]

_AT_ONCE = 16


def listed(store: Store, keys: Sequence[str]) -> Listing:
    """What is under each key, in their order; a key that is gone is left out.

    Raises:
        StorageError: the store cannot be read.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        infos = list(pool.map(store.stat, keys))
    return [
        (key, info.sha256 or info.tag, info.size)
        for key, info in zip(keys, infos, strict=True)
        if info is not None
    ]


def content_at(store: Store, key: str) -> Listing:
    """What an input names: one object, or else all below it as a prefix; empty if that is
    nothing.

    Args:
        key: as `file_at` and `folder_at` read it.

    Raises:
        StorageError: the store cannot be read.
    """
    name = key.rstrip("/")
    found = listed(store, [name]) if name and not key.endswith("/") else []
    return found or listed(store, sorted(store.list(f"{name}/" if name else "")))
