"""Seals of verdict files: a plain one that anyone can make, and one that needs a key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sound_verdict import sound_verdict

from lrf_core.artifacts import Verdict
from lrf_core.artifacts.record import digest_of
from lrf_core.errors import ArtifactError, PublishRefusedError, SpecError

SETTING = "LRF_VERDICT_KEY_FILE"
KEY = b"a key of verdicts, 32 bytes long"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "verdict.key"
    file.write_bytes(KEY + b"\n")
    return file


@pytest.fixture
def keyed(key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A verdict file that was sealed with the key, which is still there."""
    monkeypatch.setenv(SETTING, str(key_file))
    return sound_verdict(lost=20).save(tmp_path / "verdict.json")


def test_a_verdict_with_a_keyed_seal_is_read_by_who_has_the_key(
    keyed: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Verdict.load(keyed) == sound_verdict(lost=20).model_copy(
        update={"lineage": Verdict.load(keyed).lineage}
    )
    # However the file of the key ends.
    for end in (b"", b"\r\n", b"\n\n"):
        key_file.write_bytes(KEY + end)
        Verdict.load(keyed)
    # Without a key it can be read, and its plain seal still finds damage.
    monkeypatch.delenv(SETTING)
    Verdict.load(keyed)
    keyed.write_bytes(keyed.read_bytes().replace(b'"lost": 20', b'"lost": 10'))
    with pytest.raises(PublishRefusedError, match="its seal does not fit"):
        Verdict.load(keyed)


def test_where_a_key_is_named_a_verdict_without_a_keyed_seal_is_refused(
    keyed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(keyed.read_text())
    del content["keyed_seal"]
    keyed.write_text(json.dumps(content))
    with pytest.raises(PublishRefusedError, match="is not sealed with the key") as caught:
        Verdict.load(keyed)
    assert caught.value.exit_code == 3


def test_a_verdict_that_was_sealed_with_another_key_is_refused(keyed: Path, key_file: Path) -> None:
    key_file.write_bytes(b"another key of verdicts, as long")
    with pytest.raises(PublishRefusedError, match="is sealed with another key") as caught:
        Verdict.load(keyed)
    assert "another key of verdicts" not in str(caught.value)


def test_an_edit_with_a_new_plain_seal_is_found_by_the_keyed_seal_only(
    keyed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(keyed.read_text())
    seals = {name: content.pop(name) for name in ("seal", "keyed_seal")}
    content["passed"] = True
    forged = {**content, **seals, "seal": digest_of(content)}
    keyed.write_text(json.dumps(forged))
    with pytest.raises(PublishRefusedError, match="was changed since it was sealed with the key"):
        Verdict.load(keyed)
    monkeypatch.delenv(SETTING)
    assert Verdict.load(keyed).passed


@pytest.mark.parametrize("seal", [None, [], "x", {}, {"hmac": None}, {"hmac": "", "key": 3}])
def test_a_keyed_seal_of_another_form_is_refused(keyed: Path, seal: object) -> None:
    content = json.loads(keyed.read_text())
    keyed.write_text(json.dumps({**content, "keyed_seal": seal}))
    with pytest.raises(PublishRefusedError):
        Verdict.load(keyed)


def test_a_name_that_stands_in_the_file_twice_is_refused(keyed: Path) -> None:
    """Another reader might take the other one."""
    text = keyed.read_text()
    keyed.write_text(text.replace("{", '{"passed": true,', 1))
    with pytest.raises(ArtifactError, match="the key 'passed' is there twice"):
        Verdict.load(keyed)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the key of verdicts"), (b"short\n", "has 5 bytes, at least 32")],
)
def test_a_key_that_cannot_be_used_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv(SETTING, str(file))
    for use in (lambda: sound_verdict().save(tmp_path / "v.json"), lambda: Verdict.load(tmp_path)):
        with pytest.raises(SpecError, match=message) as caught:
            use()
        assert "short" not in str(caught.value)
    assert not (tmp_path / "v.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"[" * 100_000, b"\xff"])
def test_a_file_that_is_no_verdict_is_bad_input(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="is no Verdict"):
        Verdict.load(tmp_path)
