"""Makes requests of incoming models: each content is read once, and becomes one request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lrf_core.artifacts.record import digest_of
from lrf_core.errors import SpecError, StorageError
from lrf_core.files.model_names import is_model_name, only_model
from lrf_core.files.scratch import scratch_folder
from lrf_core.releases import release_name
from lrf_core.storage import MissingObjectError, Store, open_store, sha256_of
from lrf_core.storage.address import Address
from pipelines.controller.journal import Journal
from pipelines.controller.request import Note, Request, address_of
from pipelines.controller.request_store import RequestStore, Versioned, note_digest
from pipelines.controller.sources import IncomingModel, Source


class UnusableModelError(Exception):
    """A model cannot be compressed as its source wants; the message says why."""


@dataclass(frozen=True)
class ModelLocation:
    """A model that can be fetched.

    Attributes:
        fingerprint: changes with the model's content, its spec and its release name.
        fetch: writes the file into a folder and returns it; its suffix is that of the model.
            Raises UnusableModelError, LrfError.
    """

    fingerprint: str
    fetch: Callable[[Path], Path]


def locate(source: Source, incoming: IncomingModel) -> ModelLocation:
    """Find the model of a request, without reading it.

    Raises:
        UnusableModelError: there is none, or its address cannot be used.
        StorageError: its store cannot be incoming.
    """
    if incoming.problem:
        raise UnusableModelError(incoming.problem)
    if source.fetches(incoming.model):
        # A registered version never changes.
        return ModelLocation(
            digest_of([incoming.model, incoming.spec, incoming.name]),
            lambda folder: _fetched(source, incoming.model, folder),
        )
    store, key = _stored(incoming.model)
    mark = incoming.mark or _mark(store, key, incoming.model)
    fingerprint = digest_of([store.url(key), mark, incoming.spec, incoming.name])
    return ModelLocation(fingerprint, lambda folder: _read(store, key, folder))


def _mark(store: Store, key: str, address: str) -> str:
    info = store.stat(key)
    if info is None:
        raise UnusableModelError(f"nothing at {address}; upload the model, or correct its address")
    return f"{info.size} {info.tag or info.sha256}"


def _read(store: Store, key: str, folder: Path) -> Path:
    file = folder / f"model{Path(key).suffix}"
    try:
        store.get_file(key, file)
    except MissingObjectError as error:
        raise UnusableModelError(str(error)) from None
    return file


def _fetched(source: Source, model: str, folder: Path) -> Path:
    source.fetch(model, folder)
    names = (str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return folder / _only(names, model)


def _stored(uri: str) -> tuple[Store, str]:
    """The store and key of a model file, or of the only one in a folder."""
    try:
        address = Address.of(uri)
    except StorageError:
        address = Address("file", "", "")
    if address.is_remote:
        store, key = address.bucket_store(), address.path.strip("/")
    elif uri.startswith("file://") and address.path:
        folder, _, key = address.path.rstrip("/").rpartition("/")
        store = open_store(folder or "/")
    else:
        raise UnusableModelError(
            f"the model's address {uri.split('@')[-1]!r:.200} cannot be read; register one in "
            "s3://bucket/key, or name the file in the property lrf.model"
        )
    if is_model_name(key):
        return store, key
    return store, _only(store.list(f"{key}/"), uri)


def _only(names: Iterable[str], address: str) -> str:
    try:
        found = only_model(names)
    except ValueError as error:
        raise UnusableModelError(f"{address} {error}") from None
    if found is None:
        raise UnusableModelError(f"{address} holds no model file; name a .keras or .h5 file")
    return found


@dataclass(frozen=True)
class Intake:
    """Takes in the models of sources.

    Attributes:
        specs: the named specs, as plain settings.
    """

    ledger: RequestStore
    specs: dict[str, dict[str, Any]]
    journal: Journal

    def take(
        self,
        source: Source,
        incoming: IncomingModel,
        notes: dict[str, Note],
        requests: dict[str, Versioned],
    ) -> None:
        """Make a request of an incoming model, unless that was done for this content.

        Args:
            notes, requests: as they are known; what is new is added to them.

        Raises:
            LrfError: the model or the state store cannot be read or written; try again later.
        """
        digest = note_digest(source.uri, incoming.reference)
        known = notes.get(digest)
        fingerprint = ""
        try:
            found = locate(source, incoming)
            fingerprint = found.fingerprint
            same = known is not None and known.fingerprint == fingerprint
            if same and known and known.address and self._is_there(known.address, requests):
                return
            settings = self._settings_for(incoming)
            address = self._request(source.uri, incoming, settings, found, requests)
        except UnusableModelError as error:
            self._refuse(source.uri, incoming, fingerprint, str(error), notes)
            return
        note = Note(
            source=source.uri,
            reference=incoming.reference,
            fingerprint=fingerprint,
            address=address,
        )
        self.ledger.put_note(note)
        notes[digest] = note

    def _is_there(self, address: str, requests: dict[str, Versioned]) -> bool:
        # One that cannot be read is not requested again: that is for an operator to decide.
        return address in requests or any(address in key for key in self.ledger.damaged)

    def _settings_for(self, incoming: IncomingModel) -> dict[str, Any]:
        if incoming.spec not in self.specs:
            known = ", ".join(sorted(self.specs))
            raise UnusableModelError(f"there is no spec {incoming.spec!r:.80}; there are {known}")
        settings = self.specs[incoming.spec]
        wanted = incoming.name or settings["publish"].get("name") or incoming.default_name
        if wanted is None:
            return settings
        try:
            name = release_name(wanted)
        except SpecError as error:
            raise UnusableModelError(str(error)) from None
        return {**settings, "publish": {**settings["publish"], "name": name}}

    def _request(
        self,
        source: str,
        incoming: IncomingModel,
        settings: dict[str, Any],
        found: ModelLocation,
        requests: dict[str, Versioned],
    ) -> str:
        """Write the request unless it is there; returns its address."""
        with scratch_folder("intake") as scratch:
            file = found.fetch(scratch)
            model = sha256_of(file).sha256 or ""
            address = address_of(model, settings)
            if self._is_there(address, requests):
                return address
            # The model before the request: who sees the request can run it.
            kept = self.ledger.keep_model(address, file.suffix, file, model)
        now = datetime.now(UTC)
        request = Request(
            address=address,
            source=source,
            asked_as=incoming.reference,
            spec_name=incoming.spec,
            settings={**settings, "model": kept},
            model_digest=model,
            created=now,
            since=now,
        )
        if self.ledger.add(request):
            self.journal.accepted(request)
        held = self.ledger.request(address)
        if held is not None:
            requests[address] = held
        return address

    def _refuse(
        self,
        source: str,
        incoming: IncomingModel,
        fingerprint: str,
        problem: str,
        notes: dict[str, Note],
    ) -> None:
        digest = note_digest(source, incoming.reference)
        known = notes.get(digest)
        if known and (known.address, known.problem) == (None, problem):
            return
        self.journal.unusable(source, incoming.reference, problem)
        note = Note(
            source=source, reference=incoming.reference, fingerprint=fingerprint, problem=problem
        )
        self.ledger.put_note(note)
        notes[digest] = note
