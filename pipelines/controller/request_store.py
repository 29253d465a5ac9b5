"""The state store: all that the controller knows, as objects that are replaced by compare-and-swap.

`requests/<address>.json` is a request, `origins/<digest>.json` an incoming model, and
`models/<address><suffix>` the model as it was then, until its request is done: a run reads that
one, whatever happens meanwhile to the object that was dropped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from lrf_core.artifacts.seal import read_sealed, sealed_json
from lrf_core.errors import ArtifactError
from lrf_core.storage import Store
from pipelines.controller.request import Note, Request

_REQUESTS, _ORIGINS, _MODELS = "requests", "origins", "models"


@dataclass(frozen=True)
class Versioned:
    """A request as it was read, and the tag that replacing it compares."""

    request: Request
    tag: str


@dataclass
class RequestStore:
    """Requests and notes in a store. Every method raises StorageError if it cannot be used.

    Attributes:
        damaged: objects that cannot be read, and why; as of the last `requests` and `notes`.
    """

    store: Store
    damaged: dict[str, str] = field(default_factory=dict)
    # Final requests never change, and notes are changed by whoever works only.
    _final: dict[str, Versioned] = field(default_factory=dict)
    _notes: dict[str, Note] = field(default_factory=dict)

    def requests(self) -> dict[str, Versioned]:
        """All requests that can be read, by address; what is damaged is in `damaged`."""
        found: dict[str, Versioned] = {}
        self._forget_damage(_REQUESTS)
        for key in sorted(self.store.list(f"{_REQUESTS}/")):
            address = key.rpartition("/")[2].removesuffix(".json")
            held = self._final.get(address) or self._read(key)
            if held is not None:
                found[address] = held
        self._final = {at: held for at, held in found.items() if held.request.is_final}
        return found

    def request(self, address: str) -> Versioned | None:
        """One request as it is now; None if there is none. Raises ArtifactError: damaged."""
        key = _request_key(address)
        stored = self.store.read(key)
        if stored is None:
            return None
        return Versioned(read_sealed(Request, stored.content, self.store.url(key)), stored.tag)

    def add(self, request: Request) -> bool:
        """Write a new request; False if it is there already."""
        return self.store.put_if_absent(_request_key(request.address), sealed_json(request))

    def replace(self, held: Versioned, request: Request) -> bool:
        """Write what a request has become; False if another controller was faster."""
        return self.store.replace(_request_key(request.address), sealed_json(request), held.tag)

    def notes(self) -> dict[str, Note]:
        """All notes that can be read, by the digest of source and reference."""
        found: dict[str, Note] = {}
        self._forget_damage(_ORIGINS)
        for key in sorted(self.store.list(f"{_ORIGINS}/")):
            digest = key.rpartition("/")[2].removesuffix(".json")
            note = self._notes.get(digest) or self._read_note(key)
            if note is not None:
                found[digest] = note
        self._notes = found
        return dict(found)

    def put_note(self, note: Note) -> None:
        """Write a note, in place of what was known of this model."""
        digest = note_digest(note.source, note.reference)
        self.store.put(f"{_ORIGINS}/{digest}.json", sealed_json(note))
        self._notes[digest] = note

    def keep_model(self, address: str, suffix: str, file: Path, sha256: str) -> str:
        """Keep a model for the runs of a request; returns its address for `Spec.model`."""
        key = f"{_MODELS}/{address}{suffix}"
        self.store.put_file(key, file, sha256)
        return self.store.url(key)

    def drop_models(self, requests: dict[str, Versioned]) -> None:
        """Remove the models of requests that are done."""
        for key in list(self.store.list(f"{_MODELS}/")):
            held = requests.get(key.rpartition("/")[2].partition(".")[0])
            if held is not None and held.request.is_final:
                self.store.delete(key)

    def _read(self, key: str) -> Versioned | None:
        try:
            held = self.request(key.rpartition("/")[2].removesuffix(".json"))
        except ArtifactError as error:
            self.damaged[key] = str(error)
            return None
        return held

    def _read_note(self, key: str) -> Note | None:
        stored = self.store.read(key)
        if stored is None:
            return None
        try:
            note = read_sealed(Note, stored.content, self.store.url(key))
        except ArtifactError as error:
            # Looked at again, the model is found to be the same one, and the note is written again.
            self.damaged[key] = str(error)
            return None
        return note

    def _forget_damage(self, kind: str) -> None:
        for key in [key for key in self.damaged if key.startswith(f"{kind}/")]:
            del self.damaged[key]


def note_digest(source: str, reference: str) -> str:
    """The name of a note."""
    return hashlib.sha256(f"{source}\n{reference}".encode()).hexdigest()


def _request_key(address: str) -> str:
    return f"{_REQUESTS}/{address}.json"
