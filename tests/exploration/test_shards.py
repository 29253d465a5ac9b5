"""How the layers of an exploration are shared out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrf_core.artifacts import Cost, LayerRecord
from lrf_core.errors import SpecError
from lrf_core.exploration.shards import Shard, balanced_shards, exploring_seconds, layers_of

CONVOLUTION = ("tucker", "cp", "tensor_train")
DENSE = ("svd", "qr", "t3f")


def record(name: str, kernel: tuple[int, ...]) -> LayerRecord:
    return LayerRecord(
        name=name,
        kind="Conv2D" if len(kernel) == 4 else "Dense",
        kernel_shape=kernel,
        calls=(),
        cost=Cost(params=1, macs=1),
        share=0.1,
        methods=CONVOLUTION if len(kernel) == 4 else DENSE,
    )


def records_of(kernels: list[tuple[int, ...]]) -> list[LayerRecord]:
    return [record(f"layer{place}", kernel) for place, kernel in enumerate(kernels)]


CHANNELS = st.integers(1, 512)
KERNELS = st.one_of(
    st.tuples(st.just(3), st.just(3), CHANNELS, CHANNELS), st.tuples(CHANNELS, CHANNELS)
)
RECORDS = st.lists(KERNELS, max_size=24).map(records_of)
COUNTS = st.integers(1, 30)


@given(RECORDS, COUNTS)
def test_every_layer_is_in_exactly_one_shard(records: list[LayerRecord], count: int) -> None:
    shards = balanced_shards(records, count)
    assert len(shards) == count
    explored = [name for shard in shards for name in shard]
    assert sorted(explored) == sorted(record.name for record in records)


@given(RECORDS, COUNTS)
def test_a_shard_keeps_the_order_of_the_model(records: list[LayerRecord], count: int) -> None:
    names = [record.name for record in records]
    for shard in balanced_shards(records, count):
        assert list(shard) == sorted(shard, key=names.index)


@given(RECORDS, COUNTS)
def test_no_shard_has_more_than_its_share_and_one_layer(
    records: list[LayerRecord], count: int
) -> None:
    """The layer that is placed last on the fullest shard is no longer than the shards' first."""
    seconds = {record.name: exploring_seconds(record) for record in records}
    loads = [sum(seconds[name] for name in shard) for shard in balanced_shards(records, count)]
    falling = sorted(seconds.values(), reverse=True)
    mean = sum(falling) / count
    longest = falling[0] if falling else 0.0
    second = falling[count] if len(falling) > count else 0.0
    assert max(loads) <= max(longest, mean + second) + 1e-9


def test_more_shards_than_layers_leave_some_empty() -> None:
    shards = balanced_shards(records_of([(8, 8), (16, 16)]), 5)
    assert sorted(map(len, shards)) == [0, 0, 0, 1, 1]
    assert balanced_shards([], 3) == ((), (), ())


def test_a_wide_convolution_weighs_more_than_many_narrow_ones() -> None:
    wide = record("wide", (3, 3, 256, 256))
    narrow = [record(f"narrow{i}", (3, 3, 16, 16)) for i in range(8)]
    assert balanced_shards([*narrow, wide], 2)[0] == ("wide",)


def test_a_shard_is_one_part_of_the_layers_and_none_is_all() -> None:
    records = records_of([(8, 8), (16, 16), (32, 32)])
    assert layers_of(records, None) == ("layer0", "layer1", "layer2")
    parts = [layers_of(records, Shard(number, 2)) for number in (1, 2)]
    assert parts == [("layer2",), ("layer0", "layer1")]


@given(COUNTS.flatmap(lambda count: st.tuples(st.integers(1, count), st.just(count))))
def test_a_shard_survives_being_written(numbers: tuple[int, int]) -> None:
    assert Shard.parse(str(Shard(*numbers))) == Shard(*numbers)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "4", "1/4/2", "a/b", "-1/4", "1.0/4", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="shard"):
        Shard.parse(text)
