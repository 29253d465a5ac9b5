"""Many publishers at once: every version is there, under a number of its own."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from proposals import Content, Counting, Killed

from lrf_core.releases import (
    WriteResult,
    list_releases,
    read_index,
    resolve,
    set_alias,
    verify_version,
)
from lrf_core.storage import open_store

PUBLISHERS = 16


@pytest.fixture(params=["local", "s3"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return (tmp_path / "store").as_uri()
    server = request.getfixturevalue("s3_settings")
    return f"s3://{server.bucket}/at-once/{uuid.uuid4().hex}"


def at_once(act: Callable[[int], Any]) -> list[Any]:
    start = threading.Barrier(PUBLISHERS)

    def one(number: int) -> Any:
        start.wait()
        return act(number)

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        return list(pool.map(one, range(PUBLISHERS)))


def test_of_different_contents_each_gets_a_number(to: str, tmp_path: Path) -> None:
    contents = [Content(tmp_path, b"model %d" % number) for number in range(PUBLISHERS)]
    written: list[WriteResult] = at_once(lambda number: contents[number].write(open_store(to)))

    assert {each.number for each in written} == set(range(1, PUBLISHERS + 1))
    assert all(each.new for each in written)
    store = open_store(to)
    found = [resolve(store, "tiny", line.number) for line in list_releases(store, "tiny")]
    assert [listed.number for listed in found] == list(range(1, PUBLISHERS + 1))
    assert {listed.release.version for listed in found} == {each.version for each in contents}
    by_number = {each.number: each.release for each in written}
    assert all(by_number[listed.number] == listed.release for listed in found)
    assert resolve(store, "tiny", "latest").number == PUBLISHERS
    assert all(verify_version(store, "tiny", number) == [] for number in by_number)


def test_of_one_content_there_is_one_version(to: str, tmp_path: Path) -> None:
    # The model is the same, what else belongs to a release comes out otherwise each time.
    contents = [
        Content(tmp_path, b"the model").with_report(b"report %d" % number)
        for number in range(PUBLISHERS)
    ]
    written: list[WriteResult] = at_once(lambda number: contents[number].write(open_store(to)))

    store = open_store(to)
    [line] = list_releases(store, "tiny")
    listed = resolve(store, "tiny", line.number)
    assert all((each.release, each.number) == (listed.release, 1) for each in written)
    assert verify_version(store, "tiny", 1) == []
    names = {key.split("/")[1] for key in store.list("tiny/")}
    assert names == {"index.json", contents[0].version}


def test_of_one_content_with_publishers_dying_all_the_time(to: str, tmp_path: Path) -> None:
    def publish(number: int) -> WriteResult:
        dice, attempt = random.Random(number), 0
        while True:
            attempt += 1
            limit = dice.randint(5, 20 + 10 * attempt)

            def die(done: int, limit: int = limit) -> None:
                if done == limit:
                    raise Killed

            content = Content(tmp_path, b"the model").with_report(b"%d %d" % (number, attempt))
            try:
                return content.write(Counting(open_store(to), die))
            except Killed:
                index = read_index(open_store(to), "tiny")
                assert index is None or len(index.versions) == 1

    written = at_once(publish)

    store = open_store(to)
    [line] = list_releases(store, "tiny")
    listed = resolve(store, "tiny", line.number)
    assert all((each.release, each.number) == (listed.release, 1) for each in written)
    assert verify_version(store, "tiny", 1) == []


def test_champions_moved_at_once_leave_the_one_before_as_previous(to: str, tmp_path: Path) -> None:
    for number in range(1, 5):
        Content(tmp_path, b"model %d" % number).write(open_store(to))
    at_once(lambda number: set_alias(open_store(to), "tiny", "champion", number % 4 + 1))

    index = read_index(open_store(to), "tiny")
    assert index is not None
    assert set(index.aliases) == {"champion", "latest", "previous"}
    assert index.aliases["champion"] != index.aliases["previous"]
    assert index.aliases["latest"] == 4
