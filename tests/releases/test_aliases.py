"""Releases are found by number, alias and version; the champion moves, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from proposals import Content

from lrf_core.errors import ArtifactError, SpecError
from lrf_core.releases import list_releases, release_names, resolve, rollback, set_alias
from lrf_core.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    for number in (1, 2, 3):
        Content(tmp_path, b"model %d" % number).write(store)
    return store


def test_a_release_is_found_by_number_alias_and_version(store: LocalStore) -> None:
    third = resolve(store, "tiny", "latest")
    assert (third.number, third.aliases) == (3, ("latest",))
    assert third == resolve(store, "tiny", 3) == resolve(store, "tiny", "3")
    assert third == resolve(store, "tiny", third.release.version)
    assert release_names(store) == ["tiny"]
    assert [listed.number for listed in list_releases(store, "tiny")] == [1, 2, 3]


@pytest.mark.parametrize("ref", ["0", "4", "-1", "champion", "v-000000000000", "", "٣", "9" * 99])
def test_what_is_not_there_is_named(store: LocalStore, ref: str) -> None:
    with pytest.raises(ArtifactError, match=r"no release tiny .*numbers 1 to 3"):
        resolve(store, "tiny", ref)
    with pytest.raises(ArtifactError, match="no release of 'other'"):
        resolve(store, "other", ref)


def test_the_champion_so_far_becomes_the_previous_one(store: LocalStore) -> None:
    set_alias(store, "tiny", "champion", 1)
    assert resolve(store, "tiny", 1).aliases == ("champion",)
    set_alias(store, "tiny", "champion", 3)
    set_alias(store, "tiny", "champion", 3)

    assert resolve(store, "tiny", "champion").number == 3
    assert resolve(store, "tiny", "previous").number == 1
    assert resolve(store, "tiny", 3).aliases == ("champion", "latest")


def test_rolling_back_twice_changes_nothing(store: LocalStore) -> None:
    with pytest.raises(ArtifactError, match="no 'previous' release"):
        rollback(store, "tiny")
    set_alias(store, "tiny", "champion", 1)
    set_alias(store, "tiny", "champion", 2)

    assert rollback(store, "tiny").number == 1
    assert resolve(store, "tiny", "previous").number == 2
    assert rollback(store, "tiny").number == 2


@pytest.mark.parametrize("alias", ["latest", "3", "v-000000000000", "", "A", "a b", "a/b"])
def test_an_alias_that_cannot_be_used_is_refused(store: LocalStore, alias: str) -> None:
    with pytest.raises(SpecError):
        set_alias(store, "tiny", alias, 1)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_an_alias_of_no_release_is_refused(store: LocalStore, number: int) -> None:
    with pytest.raises(ArtifactError, match="numbers 1 to 3"):
        set_alias(store, "tiny", "champion", number)
    with pytest.raises(ArtifactError, match="no release of 'other'"):
        set_alias(store, "other", "champion", 1)
