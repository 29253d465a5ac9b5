"""Scores of layers under a content address: what was scored once is not scored again.

An entry holds the candidates of one layer by one method. Its key is the digest of everything that
decides them, so a change of weights, samples, settings or versions is another key, and an entry is
never out of date. Entries are JSON, written whole or not at all, and checked when they are read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
from pydantic import ValidationError

from lrf_core import methods
from lrf_core.artifacts import Candidate, LayerRecord, Record, digest_of
from lrf_core.artifacts import versions as package_versions
from lrf_core.errors import StorageError
from lrf_core.files.limits import DOCUMENT, limit
from lrf_core.storage import DamagedObjectError, MissingObjectError, Store, open_store

# Raise it when calibration or scoring gives other numbers, so that earlier entries are not used.
SCORING_VERSION = 1

# Of the schema of entries: those of another version are not even looked at.
_FOLDER = "scores-1"
_MARKER = f"{_FOLDER}/about.txt"
_ABOUT = b"Scores of layers that lrf keeps, so as not to compute them again. May be deleted.\n"
# Requests to a store at once, when entries are looked up.
_READERS = 8
# After so many entries that cannot be written, in a row, no more are tried.
_PATIENCE = 3

_logger = logging.getLogger("lrf")


class Address(Record):
    """Everything that decides the scores of one layer by one method.

    Attributes:
        layer: path in the model.
        layer_digest: of its weights, its settings and where it is used; see `layer_digest`.
        calibration_digest: of what its moments are computed from; see `calibration_digest`.
        settings: the part of the spec that scoring obeys.
        versions: of the packages that compute.
    """

    layer: str
    layer_digest: str
    calibration_digest: str
    method: str
    method_version: int
    settings: dict[str, Any]
    versions: dict[str, str]
    scoring_version: int = SCORING_VERSION

    @property
    def key(self) -> str:
        """Where the entry lies in a store."""
        digest = digest_of(self.model_dump(mode="json"))
        return f"{_FOLDER}/{digest[:2]}/{digest}.json"


class _Entry(Record):
    """What is stored; `sha256` is that of the rest."""

    schema_version: Literal[1] = 1
    address: Address
    candidates: tuple[Candidate, ...]
    sha256: str

    def checksum(self) -> str:
        return digest_of(self.model_dump(mode="json", exclude={"sha256"}))


@dataclass
class ScoreCache:
    """Entries in a store. Several processes may use one store at once."""

    store: Store
    _failures: int = field(default=0, init=False)

    def find(self, addresses: Sequence[Address]) -> list[tuple[Candidate, ...] | None]:
        """The candidates at each address; None if there are none, or none that can be used.

        Raises:
            StorageError: the store cannot be read.
        """
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(self._read, addresses))

    def keep(self, address: Address, candidates: Sequence[Candidate]) -> None:
        """Write an entry. If that fails, say so and go on: the scores are here all the same."""
        if self._failures >= _PATIENCE:
            return
        entry = _Entry(address=address, candidates=tuple(candidates), sha256="")
        entry = entry.model_copy(update={"sha256": entry.checksum()})
        try:
            self.store.put(address.key, entry.model_dump_json().encode())
            self._failures = 0
        except StorageError as error:
            self._failures += 1
            more = "; no more are tried" if self._failures == _PATIENCE else ""
            _logger.warning("scores of '%s' are not kept: %s%s", address.layer, error, more)

    def _read(self, address: Address) -> tuple[Candidate, ...] | None:
        try:
            return _checked(self.store.get(address.key), address)
        except MissingObjectError:
            return None
        except DamagedObjectError as error:
            where, reason = self.store.url(address.key), " ".join(str(error).split())
            _logger.warning("cache entry %s is not used and made again: %s", where, reason)
            return None


def _checked(content: bytes, address: Address) -> tuple[Candidate, ...]:
    """The candidates in an entry. Raises DamagedObjectError unless they are those wanted."""
    wanted = f"'{address.layer}' by {address.method}"
    if len(content) > limit(DOCUMENT):
        raise DamagedObjectError(f"an entry of {len(content):,} bytes holds no scores of {wanted}")
    try:
        entry = _Entry.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DamagedObjectError(f"no scores of {wanted}: {first['msg']}") from None
    if entry.sha256 != entry.checksum():
        raise DamagedObjectError(f"the scores of {wanted} do not match their checksum")
    if entry.address != address:
        raise DamagedObjectError(f"these are scores of '{entry.address.layer}', not of {wanted}")
    if {(c.layer, c.method) for c in entry.candidates} - {(address.layer, address.method)}:
        raise DamagedObjectError(f"these are not all candidates of {wanted}")
    return entry.candidates


def open_cache(uri: str) -> ScoreCache:
    """The cache at an address, once it is known that it can be read and written.

    Args:
        uri: `file:///dir`, a plain path or `s3://bucket/prefix`; see `storage.open_store`.

    Raises:
        StorageError: it cannot be reached, read or written.
    """
    store = open_store(uri)
    try:
        store.check()
        store.put(_MARKER, _ABOUT)
        store.get(_MARKER)
    except StorageError as error:
        # Of its own kind: a store that does not answer may answer later.
        raise type(error)(
            f"the cache of scores cannot be used: {error}; or give another place with --cache "
            "(explore.cache), or none with --no-cache (explore.cache: false)"
        ) from None
    return ScoreCache(store)


def addresses_of(
    record: LayerRecord, layer: keras.Layer, calibration: str, settings: dict[str, Any]
) -> dict[str, Address]:
    """The address of a layer's scores by each of its methods.

    Args:
        calibration: see `calibration_digest`.
        settings: the part of the spec that scoring obeys.
    """
    digest, versions = layer_digest(record, layer), package_versions()
    return {
        name: Address(
            layer=record.name,
            layer_digest=digest,
            calibration_digest=calibration,
            method=name,
            method_version=methods.get(name).version,
            settings=settings,
            versions=versions,
        )
        for name in record.methods
    }


def layer_digest(record: LayerRecord, layer: keras.Layer) -> str:
    """sha256 (hex) of a layer: weights, settings, and the sizes of the maps it is used on."""
    about = record.model_dump(mode="json", exclude={"methods", "reason", "share"})
    settings = json.dumps(
        [about, layer.get_config()], sort_keys=True, default=keras.saving.serialize_keras_object
    )
    digest = hashlib.sha256(settings.encode())
    for weight in layer.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def calibration_digest(
    model_digest: str, samples_digest: str, layers: Sequence[str], seed: int
) -> str:
    """sha256 (hex) of what moments are computed from.

    Args:
        layers: those that are watched while the model runs: they decide how TensorFlow fuses its
            operations, and with it the last bits of what is seen.
    """
    return digest_of([model_digest, samples_digest, list(layers), seed])
