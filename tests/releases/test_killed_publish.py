"""A publisher that dies at any moment leaves nothing that readers see, or a whole release."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from proposals import Content, Counting, Killed

from lrf_core.errors import ArtifactError
from lrf_core.releases import list_releases, read_index, resolve, verify_version
from lrf_core.storage import Store, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store((tmp_path / "store").as_uri())
    server = request.getfixturevalue("s3_settings")
    return open_store(f"s3://{server.bucket}/killed/{uuid.uuid4().hex}")


def check_whole(store: Store, content: Content) -> None:
    """Exactly one release is visible, whole, and nothing unfinished lies about."""
    [line] = list_releases(store, content.name)
    listed = resolve(store, content.name, line.number)
    assert (listed.number, listed.aliases) == (1, ("latest",))
    assert listed.release.model_digest == content.digest
    assert verify_version(store, content.name, 1) == []
    paths = {file.path for file in listed.release.files} | {"manifest.json"}
    start = f"{content.name}/{content.version}/"
    assert {key.removeprefix(start) for key in store.list(start)} == paths
    # No other version, not even an invisible one.
    assert {key.split("/")[1] for key in store.list(f"{content.name}/")} == {
        content.version,
        "index.json",
    }


def check_readers(store: Store, content: Content) -> None:
    """What readers see is nothing, or whole."""
    if read_index(store, content.name) is not None:
        assert verify_version(store, content.name, 1) == []
    else:
        with pytest.raises(ArtifactError, match="no release of 'tiny'"):
            resolve(store, content.name, "latest")


def test_killed_before_each_operation_and_run_again(store: Store, tmp_path: Path) -> None:
    operations = Counting(store, lambda number: None)
    Content(tmp_path / "files").write(operations)
    assert operations.done > 20
    for point in range(1, operations.done + 1):
        fresh = open_store(f"{store.url()}-{point}")
        content = Content(tmp_path / "files" / str(point))

        def die(number: int, point: int = point) -> None:
            if number == point:
                raise Killed

        with pytest.raises(Killed):
            content.write(Counting(fresh, die))
        check_readers(fresh, content)
        # Run again, where what does not decide the version came out otherwise.
        content.with_report(b"another report").write(fresh)
        check_whole(fresh, content)


def test_killed_again_and_again_until_it_is_through(store: Store, tmp_path: Path) -> None:
    content, dice = Content(tmp_path / "files"), random.Random(7)
    for turn in range(200):
        limit = dice.randint(1, 12 + turn)

        def die(number: int, limit: int = limit) -> None:
            if number == limit:
                raise Killed

        try:
            content.with_report(f"report {turn}".encode()).write(Counting(store, die))
        except Killed:
            check_readers(store, content)
        else:
            break
    check_whole(store, content)


def test_content_that_got_lost_meanwhile_is_written_anew(store: Store, tmp_path: Path) -> None:
    content = Content(tmp_path / "files")

    def die(number: int) -> None:
        if store.stat(f"tiny/{content.version}/intent.json"):
            raise Killed

    with pytest.raises(Killed):
        content.write(Counting(store, die))
    for key in list(store.list("blobs/")):
        store.delete(key)
    again = content.with_report(b"the report that can be had").write(store)

    check_whole(store, content)
    report = next(file for file in again.release.files if file.path == "report.html")
    assert store.get(f"tiny/{content.version}/report.html") == b"the report that can be had"
    assert report.size == len(b"the report that can be had")


def test_a_damaged_blob_is_replaced(store: Store, tmp_path: Path) -> None:
    content = Content(tmp_path / "files")
    for file in content.proposal(store).release.files:
        store.put(f"blobs/{file.sha256}", b"damaged")
    content.write(store)

    check_whole(store, content)


@pytest.mark.parametrize("path", ["model.keras", "report.html", "manifest.json"])
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "damaged"])
def test_publishing_again_repairs_what_was_damaged(
    store: Store, tmp_path: Path, path: str, lost: bool
) -> None:
    content = Content(tmp_path / "files")
    written = content.write(store)
    key = f"tiny/{content.version}/{path}"
    if lost:
        store.delete(key)
    else:
        store.put(key, b"damaged")
    assert verify_version(store, "tiny", 1) == [path]
    again = content.with_report(b"cannot be used").write(store)

    assert (again.release, again.number, again.new) == (written.release, 1, False)
    check_whole(store, content)


def test_damage_beyond_repair_is_named_and_not_published_over(store: Store, tmp_path: Path) -> None:
    content = Content(tmp_path / "files")
    content.write(store)
    for key in (f"tiny/{content.version}/report.html", *store.list("blobs/")):
        store.put(key, b"damaged")
    with pytest.raises(ArtifactError, match=r"report\.html.*restore it from a backup"):
        content.with_report(b"cannot be used").write(store)
