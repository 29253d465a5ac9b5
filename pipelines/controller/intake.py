"""From models that ask to requests: each content is looked at once, and becomes one request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lrf_core.errors import SpecError
from lrf_core.files.scratch import scratch_folder
from lrf_core.releases import release_name
from lrf_core.storage import sha256_of
from pipelines.controller.journal import Journal
from pipelines.controller.ledger import RequestStore, Versioned, note_digest
from pipelines.controller.located import Located, UnusableAskError, located
from pipelines.controller.request import Note, Request, address_of
from pipelines.controller.sources.base import Asked, Source


@dataclass(frozen=True)
class Intake:
    """Takes in what sources ask for.

    Attributes:
        specs: the named specs, as plain settings.
    """

    ledger: RequestStore
    specs: dict[str, dict[str, Any]]
    journal: Journal

    def take(
        self, source: Source, asked: Asked, notes: dict[str, Note], requests: dict[str, Versioned]
    ) -> None:
        """Make a request of a model that asks, unless that was done for this content.

        Args:
            notes, requests: as they are known; what is new is added to them.

        Raises:
            LrfError: the model or the state store cannot be read or written; ask again later.
        """
        digest = note_digest(source.uri, asked.reference)
        known = notes.get(digest)
        fingerprint = ""
        try:
            found = located(source, asked)
            fingerprint = found.fingerprint
            same = known is not None and known.fingerprint == fingerprint
            if same and known and known.address and self._is_there(known.address, requests):
                return
            settings = self._settings_for(asked)
            address = self._request(source.uri, asked, settings, found, requests)
        except UnusableAskError as error:
            self._refuse(source.uri, asked, fingerprint, str(error), notes)
            return
        note = Note(
            source=source.uri, reference=asked.reference, fingerprint=fingerprint, address=address
        )
        self.ledger.put_note(note)
        notes[digest] = note

    def _is_there(self, address: str, requests: dict[str, Versioned]) -> bool:
        # One that cannot be read is not asked for anew: a person decides that.
        return address in requests or any(address in key for key in self.ledger.damaged)

    def _settings_for(self, asked: Asked) -> dict[str, Any]:
        if asked.spec not in self.specs:
            known = ", ".join(sorted(self.specs))
            raise UnusableAskError(f"there is no spec {asked.spec!r:.80}; there are {known}")
        settings = self.specs[asked.spec]
        wanted = asked.name or settings["publish"].get("name") or asked.default_name
        if wanted is None:
            return settings
        try:
            name = release_name(wanted)
        except SpecError as error:
            raise UnusableAskError(str(error)) from None
        return {**settings, "publish": {**settings["publish"], "name": name}}

    def _request(
        self,
        source: str,
        asked: Asked,
        settings: dict[str, Any],
        found: Located,
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
            asked_as=asked.reference,
            spec_name=asked.spec,
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
        self, source: str, asked: Asked, fingerprint: str, problem: str, notes: dict[str, Note]
    ) -> None:
        digest = note_digest(source, asked.reference)
        known = notes.get(digest)
        if known and (known.address, known.problem) == (None, problem):
            return
        self.journal.unusable(source, asked.reference, problem)
        note = Note(
            source=source, reference=asked.reference, fingerprint=fingerprint, problem=problem
        )
        self.ledger.put_note(note)
        notes[digest] = note
