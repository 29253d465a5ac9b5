"""Whatever is done to a store in whatever order, it holds what a dict would hold."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from seaweed import Seaweed

from lrf_core.storage import MissingObjectError, ObjectInfo, Store, open_store

KEYS = st.sampled_from(["a", "b", "net/index.json", "net/v-1/model.keras", "net/v-1/plan.json"])
CONTENTS = st.binary(max_size=40)
PREFIXES = st.sampled_from(["", "net", "net/", "net/v-1/", "a", "none/"])


class Sequences(RuleBasedStateMachine):
    """One store, beside the dict that it is compared with."""

    address: str

    @initialize()
    def open(self) -> None:
        self.store: Store = open_store(f"{self.address}/{uuid.uuid4().hex}")
        self.known: dict[str, bytes] = {}
        self.tags: dict[str, tuple[str, bytes]] = {}
        self.scratch = tempfile.TemporaryDirectory()
        self.file = Path(self.scratch.name) / "file"

    def teardown(self) -> None:
        self.scratch.cleanup()

    @rule(key=KEYS, content=CONTENTS)
    def put(self, key: str, content: bytes) -> None:
        self.store.put(key, content)
        self.known[key] = content

    @rule(key=KEYS, content=CONTENTS)
    def put_file(self, key: str, content: bytes) -> None:
        self.file.write_bytes(content)
        self.store.put_file(key, self.file)
        self.known[key] = content

    @rule(key=KEYS, content=CONTENTS)
    def put_if_absent(self, key: str, content: bytes) -> None:
        assert self.store.put_if_absent(key, content) is (key not in self.known)
        self.known.setdefault(key, content)

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        stored = self.store.read(key)
        if stored is None:
            assert key not in self.known
        else:
            assert stored.content == self.known[key]
            self.tags[key] = (stored.tag, stored.content)

    @rule(key=KEYS, content=CONTENTS)
    def replace(self, key: str, content: bytes) -> None:
        tag, read = self.tags.get(key, (None, None))
        # The same content put back may have the same tag, and need not.
        if read is not None and self.known.get(key) == read:
            stored = self.store.read(key)
            assert stored is not None
            tag = stored.tag
        written = self.store.replace(key, content, tag)
        assert written is (self.known.get(key) == read)
        if written:
            self.known[key] = content

    @rule(source=KEYS, to=KEYS)
    def copy(self, source: str, to: str) -> None:
        if source == to:
            return
        if source in self.known:
            self.store.copy(source, to)
            self.known[to] = self.known[source]
        else:
            with pytest.raises(MissingObjectError):
                self.store.copy(source, to)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.known.pop(key, None)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        if key in self.known:
            assert self.store.get(key) == self.known[key]
            self.store.get_file(key, self.file)
            assert self.file.read_bytes() == self.known[key]
        else:
            with pytest.raises(MissingObjectError):
                self.store.get(key)

    @rule(key=KEYS)
    def stat(self, key: str) -> None:
        content = self.known.get(key)
        digest = hashlib.sha256(content or b"").hexdigest()
        expected = None if content is None else ObjectInfo(len(content), digest)
        assert self.store.stat(key) == expected

    @rule(prefix=PREFIXES)
    def list_below(self, prefix: str) -> None:
        found = sorted(self.store.list(prefix))
        assert found == sorted(key for key in self.known if key.startswith(prefix))

    @invariant()
    def lists_what_is_there(self) -> None:
        assert sorted(self.store.list()) == sorted(self.known)


def check(address: str, examples: int) -> None:
    machine = type("SequencesThere", (Sequences,), {"address": address})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_local_store_holds_what_a_dict_would(tmp_path: Path) -> None:
    check(str(tmp_path), examples=12)


def test_s3_holds_what_a_dict_would(s3_settings: Seaweed) -> None:
    check(f"s3://{s3_settings.bucket}/sequences", examples=8)
