"""`lrf releases`: people and scripts see what is published, and whether it is sound."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from proposals import Content

from lrf_core.commands import app as cli
from lrf_core.releases import set_alias
from lrf_core.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    for number in (1, 2):
        Content(tmp_path, b"model %d" % number).write(store)
        set_alias(store, "tiny", "champion", number)
    Content(tmp_path, b"model", name="other").write(store)
    return store


class Ended:
    """How a command ended, and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.app(list(arguments), standalone_mode=True)
        self.code = ended.value.code or 0
        self.out, self.err = capsys.readouterr()


def releases(capsys: pytest.CaptureFixture[str], store: LocalStore, *arguments: str) -> Ended:
    return Ended(capsys, "releases", *arguments, "--from", str(store.root))


def test_list_shows_numbers_aliases_and_the_model(
    store: LocalStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ended = releases(capsys, store, "list")
    assert ended.code == 0
    words = " ".join(ended.out.split())
    for expected in ("Releases of tiny", "Releases of other", "champion, latest", "previous"):
        assert expected in words
    assert "90.00% > 89.50%" in words
    assert "100 > 50" in words
    listed = json.loads(releases(capsys, store, "list", "tiny", "--json").out)
    assert [each["number"] for each in listed["tiny"]] == [1, 2]
    assert listed["tiny"][0]["aliases"] == ["previous"]
    empty = LocalStore(tmp_path / "empty")
    assert "No releases" in releases(capsys, empty, "list").out


def test_show_gives_the_files_of_one_release(
    store: LocalStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    version = Content(tmp_path, b"model 1").version
    for ref in ("previous", "1", version):
        ended = releases(capsys, store, "show", "tiny", ref)
        assert ended.code == 0
        assert "saved_model/1/saved_model.pb" in ended.out
        assert ended.out.splitlines()[-1] == store.url(f"tiny/{version}")
    latest = json.loads(releases(capsys, store, "show", "tiny", "--json").out)
    assert latest["number"] == 2
    assert {file["path"] for file in latest["files"]} > {"model.keras"}


def test_verify_ends_with_2_and_the_paths_that_are_damaged(
    store: LocalStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ended = releases(capsys, store, "verify", "tiny")
    assert (ended.code, ended.out.count(": sound\n")) == (0, 2)
    version = Content(tmp_path, b"model 1").version
    store.put(f"tiny/{version}/model.keras", b"damaged")
    ended = releases(capsys, store, "verify", "tiny")
    assert ended.code == 2
    assert f"tiny 1 {version}: DAMAGED: model.keras\n" in ended.out
    assert releases(capsys, store, "verify", "tiny", "champion").code == 0
    ended = releases(capsys, store, "verify", "tiny", "previous", "--json")
    assert ended.code == 2
    assert json.loads(ended.out) == {"name": "tiny", "damaged": {"1": ["model.keras"]}}


def test_rollback_makes_the_previous_champion_champion_again(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = releases(capsys, store, "rollback", "tiny")
    assert ended.code == 0
    assert "the champion is number 1" in ended.out
    back = json.loads(releases(capsys, store, "rollback", "tiny", "--json").out)
    assert (back["number"], back["aliases"]) == (2, ["champion", "latest"])


def test_gc_removes_nothing_until_told_to(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    garbage = f"blobs/{'a' * 64}"
    store.put(garbage, b"left")
    then = time.time() - 7200
    os.utime(store.root / garbage, (then, then))
    assert releases(capsys, store, "gc").out == ""
    ended = releases(capsys, store, "gc", "--older-than", "1")
    assert ended.out == f"{garbage}\n"
    assert "1 objects, 4 bytes found; remove it with --delete" in ended.err
    assert store.stat(garbage)
    ended = releases(capsys, store, "gc", "--older-than", "1", "--delete", "--json")
    assert json.loads(ended.out) == {"removed": True, "bytes": 4, "keys": [garbage]}
    assert store.stat(garbage) is None


@pytest.mark.parametrize("command", ["list", "show", "verify", "rollback", "gc"])
def test_every_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "releases", command, "--help")
    assert ended.code == 0
    assert f"lrf releases {command}" in ended.out


def test_what_is_not_there_is_one_line_and_2(
    store: LocalStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["lrf", "releases", "show", "nothing", "--from", str(store.root)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
