"""Share the layers of an exploration out: which shard explores what, and how long that takes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lrf_core import methods
from lrf_core.artifacts import LayerRecord
from lrf_core.errors import SpecError

_WRITTEN = re.compile(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*")


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of an exploration; `number` counts from 1.

    Raises:
        SpecError: no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SpecError(
                f"there is no shard {self.number} of {self.count}; shards are counted from 1, the "
                f"last of {self.count} is {self.count}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/4` as the second shard of four. Raises SpecError."""
        found = _WRITTEN.fullmatch(text)
        if not found:
            raise SpecError(f"'{text}' is no shard; write its number and how many there are: 1/4")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def layers_of(records: Sequence[LayerRecord], shard: Shard | None) -> tuple[str, ...]:
    """The layers that a shard explores, in the order of `records`; all for None."""
    if shard is None:
        return tuple(record.name for record in records)
    return balanced_shards(records, shard.count)[shard.number - 1]


def balanced_shards(records: Sequence[LayerRecord], count: int) -> tuple[tuple[str, ...], ...]:
    """Spread layers over `count` shards of about equal work; with few layers some are empty.

    The longest first, each to the shard with the least work so far (LPT; Graham 1969). Decided by
    the records and the count alone, so that shards that know nothing of each other agree.

    Args:
        records: the layers to explore, in the order of the model, which every shard keeps.
    """
    work = {record.name: exploring_seconds(record) for record in records}
    shards: list[set[str]] = [set() for _ in range(count)]
    loads = [0.0] * count
    for record in sorted(records, key=lambda record: work[record.name], reverse=True):
        lightest = loads.index(min(loads))
        shards[lightest].add(record.name)
        loads[lightest] += work[record.name]
    return tuple(
        tuple(record.name for record in records if record.name in shard) for shard in shards
    )


def exploring_seconds(record: LayerRecord) -> float:
    """About how long one core takes to score a layer by all its methods."""
    outputs = record.kernel_shape[-1]
    rows = math.prod(record.kernel_shape[:-1])
    laws = (methods.get(method).exploring_cost for method in record.methods)
    return float(sum(k * rows**a * outputs**b for k, a, b in laws))
