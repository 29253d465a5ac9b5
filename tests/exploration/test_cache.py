"""Scores under a content address: what decides it, and that only sound entries are used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from seaweed import Seaweed

from lrf_core.artifacts import Candidate, Cost, LayerRecord
from lrf_core.errors import StorageError
from lrf_core.exploration.cache import (
    Address,
    ScoreCache,
    addresses_of,
    calibration_digest,
    layer_digest,
    open_cache,
)
from lrf_core.models.inventory import take_inventory
from lrf_core.storage import MissingObjectError, Store, open_store

ADDRESS = Address(
    layer="conv",
    layer_digest="l",
    calibration_digest="c",
    method="svd",
    method_version=1,
    settings={"ranks_per_mode": 16, "similarity": "nmse"},
    versions={"numpy": "2"},
)
# Numbers that no decimal notation shorter than repr's gives back.
SCORES = tuple(
    Candidate(
        layer="conv",
        method="svd",
        ranks=(rank,),
        cost=Cost(params=8 * rank, macs=16 * rank),
        error=0.1 + 0.2 * rank,
        similarity=1 / 3 / rank,
        sensitivity=float(np.nextafter(1e-300, 1)),
        note="é",
    )
    for rank in (1, 2)
)


@pytest.fixture
def cache(tmp_path: Path) -> ScoreCache:
    return open_cache(str(tmp_path / "cache"))


def entry_file(cache: ScoreCache, tmp_path: Path) -> Path:
    cache.keep(ADDRESS, SCORES)
    return tmp_path / "cache" / ADDRESS.key


def test_what_is_kept_is_found_bit_for_bit(cache: ScoreCache) -> None:
    assert cache.find([ADDRESS]) == [None]
    cache.keep(ADDRESS, SCORES)
    other = ADDRESS.model_copy(update={"method": "qr"})
    assert cache.find([other, ADDRESS]) == [None, SCORES]


def test_no_candidates_are_scores_too(cache: ScoreCache) -> None:
    cache.keep(ADDRESS, ())
    assert cache.find([ADDRESS]) == [()]


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "conv2"},
        {"layer_digest": "x"},
        {"calibration_digest": "x"},
        {"method": "qr"},
        {"method_version": 2},
        {"settings": {"ranks_per_mode": 17, "similarity": "nmse"}},
        {"settings": {"ranks_per_mode": 16, "similarity": "cka"}},
        {"versions": {"numpy": "3"}},
        {"scoring_version": 99},
    ],
)
def test_the_key_changes_with_each_ingredient(change: dict[str, Any]) -> None:
    assert ADDRESS.model_copy(update=change).key != ADDRESS.key


def test_the_calibration_digest_changes_with_each_ingredient() -> None:
    digests = {
        calibration_digest(*given)
        for given in [
            ("m", "s", ["a", "b"], 0),
            ("n", "s", ["a", "b"], 0),
            ("m", "t", ["a", "b"], 0),
            ("m", "s", ["a"], 0),
            ("m", "s", ["a", "b"], 1),
        ]
    }
    assert len(digests) == 5


def dense(activation: str = "relu") -> tuple[LayerRecord, keras.layers.Dense]:
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(8, activation=activation, name="dense")
    inputs = keras.Input((16,))
    (record,) = take_inventory(keras.Model(inputs, layer(inputs)), ("svd", "qr"))
    return record, layer


def test_a_layer_is_known_by_weights_settings_and_use() -> None:
    record, layer = dense()
    same = layer_digest(*dense())
    digests = [same, layer_digest(*dense("tanh"))]
    digests.append(layer_digest(record.model_copy(update={"fixed_sizes": False}), layer))
    for weight in (layer.kernel, layer.bias):
        values = keras.ops.convert_to_numpy(weight).copy()
        values.flat[-1] = np.nextafter(values.flat[-1], np.float32(9))
        weight.assign(values)
        digests.append(layer_digest(record, layer))
    assert len(set(digests)) == len(digests)
    assert layer_digest(*dense()) == same
    fewer = record.model_copy(update={"methods": ("svd",), "share": 0.1})
    assert layer_digest(fewer, layer) == digests[-1]


def test_a_layer_has_an_address_for_each_method() -> None:
    record, layer = dense()
    found = addresses_of(record, layer, "c", {"similarity": "nmse"})
    assert list(found) == ["svd", "qr"] == [address.method for address in found.values()]
    assert found["svd"].key != found["qr"].key


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


def another_number(content: bytes) -> bytes:
    entry = json.loads(content)
    entry["candidates"][0]["error"] += 0.5
    return json.dumps(entry).encode()


def another_schema(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "schema_version": 2}).encode()


def of_a_future_version(content: bytes) -> bytes:
    entry = json.loads(content)
    entry["candidates"][0]["energy"] = 1.0
    return json.dumps(entry).encode()


@pytest.mark.parametrize(
    "damage",
    [
        damaged,
        another_number,
        another_schema,
        of_a_future_version,
        lambda content: b"",
        lambda content: b"\xff\x00 not JSON",
        lambda content: b"{}",
    ],
)
def test_a_damaged_entry_is_said_in_one_line_and_made_again(
    damage: Any, cache: ScoreCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = entry_file(cache, tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING, "lrf"):
        assert cache.find([ADDRESS]) == [None]
    assert len(caplog.records) == 1
    assert "is not used and made again" in caplog.text
    assert ADDRESS.key in caplog.text
    assert "\n" not in caplog.records[0].getMessage()
    cache.keep(ADDRESS, SCORES)
    assert cache.find([ADDRESS]) == [SCORES]


def test_the_entry_of_another_layer_is_not_taken(
    cache: ScoreCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = ADDRESS.model_copy(update={"layer": "other"})
    cache.keep(foreign, SCORES)
    file = entry_file(cache, tmp_path)
    file.write_bytes((tmp_path / "cache" / foreign.key).read_bytes())
    assert cache.find([ADDRESS]) == [None]
    assert "scores of 'other'" in caplog.text


@pytest.mark.parametrize("place", ["file/cache", "file"])
def test_a_cache_that_cannot_be_written_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cache of scores cannot be used.*--no-cache") as raised:
        open_cache(str(tmp_path / place))
    assert str(tmp_path / "file") in str(raised.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_scores_that_cannot_be_kept_do_not_end_the_work(
    cache: ScoreCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a disk is full after an hour: here a file takes the folder's place."""
    blocked = ADDRESS.key.rpartition("/")[0]
    (tmp_path / "cache" / blocked).write_text("in the way")
    for _ in range(5):
        cache.keep(ADDRESS, SCORES)
    assert len(caplog.records) == 3
    assert "not kept" in caplog.messages[0]
    assert caplog.messages[2].endswith("no more are tried")


def test_a_cache_in_s3(s3_settings: Seaweed) -> None:
    uri = f"s3://{s3_settings.bucket}/scores"
    cache = open_cache(uri)
    assert cache.find([ADDRESS]) == [None]
    cache.keep(ADDRESS, SCORES)
    assert open_cache(uri).find([ADDRESS]) == [SCORES]
    # Cut short, with its old sha256 still in the object's metadata, and by another program.
    store: Store = open_store(uri)
    content = store.get(ADDRESS.key)
    store.put(ADDRESS.key, damaged(content))
    assert cache.find([ADDRESS]) == [None]
    cache.keep(ADDRESS, SCORES)
    assert cache.find([ADDRESS]) == [SCORES]


def test_a_bucket_that_is_not_there_is_said_at_the_start(s3_settings: Seaweed) -> None:
    with pytest.raises(StorageError, match="no bucket 'nowhere-at-all'"):
        open_cache("s3://nowhere-at-all/scores")


def test_nothing_is_left_of_a_store_but_entries_and_a_word_about_them(
    cache: ScoreCache, tmp_path: Path
) -> None:
    entry_file(cache, tmp_path)
    keys = set(cache.store.list())
    assert keys == {ADDRESS.key, "scores-1/about.txt"}
    assert b"May be deleted" in cache.store.get("scores-1/about.txt")
    with pytest.raises(MissingObjectError):
        cache.store.get("scores-1/00/none.json")


def test_candidates_of_another_layer_or_method_are_made_again(cache: ScoreCache) -> None:
    for change in ({"layer": "other"}, {"method": "qr"}):
        cache.keep(ADDRESS, [SCORES[0], SCORES[1].model_copy(update=change)])
        assert cache.find([ADDRESS]) == [None]
