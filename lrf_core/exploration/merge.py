"""The shards of one exploration as one design space, whatever their number and order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lrf_core import methods
from lrf_core.artifacts import Candidate, DesignSpace, Lineage
from lrf_core.errors import ArtifactError
from lrf_core.exploration.shards import Shard

_SHARD_FILE = re.compile(r"design_space-(\d+)-of-(\d+)\.parquet")
_PART = "shard_"
# Names told in a message, at most.
_TOLD = 4


def in_order(candidates: Iterable[Candidate], layers: Sequence[str]) -> tuple[Candidate, ...]:
    """Candidates as every design space lists them: by layer, method, form and ranks.

    Args:
        layers: all that candidates are of, in the order of the model.
    """
    layer_place = {name: place for place, name in enumerate(layers)}
    method_place = {name: place for place, name in enumerate(methods.names())}

    def place(candidate: Candidate) -> tuple[int, int, str, str, tuple[int, ...]]:
        method = candidate.method
        return (
            layer_place[candidate.layer],
            method_place.get(method, len(method_place)),
            method,
            candidate.form,
            candidate.ranks,
        )

    return tuple(sorted(candidates, key=place))


def merged(spaces: Sequence[DesignSpace]) -> DesignSpace:
    """Join design spaces that were explored side by side; all layers need not be there yet.

    Raises:
        ArtifactError: none given, of different models, samples or settings, or a layer in more
            than one.
    """
    if not spaces:
        raise ArtifactError("no design space given; run explore first")
    first = spaces[0]
    for space in spaces:
        _check_same_exploration(first, space)
        _check_layers(space)
    explored = [name for space in spaces for name in space.layers]
    twice = sorted(name for name, count in Counter(explored).items() if count > 1)
    if twice:
        raise ArtifactError(
            f"{_names(twice)} in more than one design space ({_shards(spaces)}); give each shard "
            "once, and shards of one number only"
        )
    known = set(explored)
    layers = tuple(name for name in first.eligible or explored if name in known)
    whole = len(spaces) == 1 or layers == first.eligible
    return first.model_copy(
        update={
            "lineage": _joined_lineage(spaces, whole) if len(spaces) > 1 else first.lineage,
            "layers": layers,
            "candidates": in_order((c for space in spaces for c in space.candidates), layers),
            "latency_ms": {k: ms for space in spaces for k, ms in space.latency_ms.items()},
        }
    )


def check_whole(space: DesignSpace) -> None:
    """Raise ArtifactError, naming the shards that are missing, unless all layers are explored."""
    explored = set(space.layers)
    missing = [name for name in space.eligible if name not in explored]
    if not missing:
        return
    there = {str(shard) for shard in _shards_of(space)}
    counts = {Shard.parse(shard).count for shard in there}
    absent = [
        f"{number}/{count}"
        for count in sorted(counts)
        for number in range(1, count + 1)
        if f"{number}/{count}" not in there
    ]
    which = f": shard {', '.join(absent)} is missing" if absent else ""
    raise ArtifactError(
        f"{_names(missing)} in no design space{which}; run lrf explore --shard for what is "
        "missing, and give all files"
    )


def read_design_space(folder: Path, files: Sequence[Path] = ()) -> DesignSpace:
    """The whole design space of a run, from one file or from those of all shards.

    Args:
        folder: the run's output, where design_space.parquet or the files of the shards,
            design_space-1-of-4.parquet and so on, are looked for.
        files: read instead, if any.

    Raises:
        ArtifactError: nothing there, a shard is missing, or they do not belong together.
    """
    space = merged([DesignSpace.load(file) for file in files]) if files else _found_in(folder)
    check_whole(space)
    return space


def _found_in(folder: Path) -> DesignSpace:
    file = folder / DesignSpace.file_name
    shards = [DesignSpace.load(each) for each in _shard_files(folder)]
    if not shards:
        return DesignSpace.load(file)
    one = DesignSpace.load(file) if file.is_file() else None
    # A file that shards were joined to earlier is no newer than they are.
    if one is None or any(name.startswith(_PART) for name in one.lineage.inputs):
        return merged(shards)
    if all(_exploration(shard) == _exploration(one) for shard in shards):
        return one
    raise ArtifactError(
        f"{folder} holds {file.name} and shards of another exploration; delete what is out of "
        "date, or name the files with --space"
    )


def _shard_files(folder: Path) -> list[Path]:
    """Of one sharding, in order. Raises ArtifactError when there are files of several."""
    found = {file: _SHARD_FILE.fullmatch(file.name) for file in folder.glob("*.parquet")}
    numbers = {file: (int(m[2]), int(m[1])) for file, m in found.items() if m}
    counts = sorted({count for count, _ in numbers.values()})
    if len(counts) > 1:
        raise ArtifactError(
            f"{folder} holds shards of {' and of '.join(map(str, counts))}; delete those that are "
            "out of date, or name the files with --space"
        )
    return sorted(numbers, key=lambda file: numbers[file])


def _check_same_exploration(first: DesignSpace, other: DesignSpace) -> None:
    if other.model_digest != first.model_digest:
        raise ArtifactError(
            f"a design space is of model {other.model_digest[:12]}, another of "
            f"{first.model_digest[:12]}; explore one model"
        )
    if _exploration(other) != _exploration(first):
        raise ArtifactError(
            "the design spaces were made with different calibration samples, similarities or "
            "other settings; explore every shard with the same data and settings"
        )


def _check_layers(space: DesignSpace) -> None:
    strange = sorted({c.layer for c in space.candidates} - set(space.layers))
    if strange:
        raise ArtifactError(
            f"{_names(strange)} not among the layers that the design space was made of, but has "
            "candidates there: the file was altered; run explore again"
        )


def _exploration(space: DesignSpace) -> tuple[Any, ...]:
    """What is the same for all shards of one exploration."""
    settings = {key: value for key, value in space.lineage.settings.items() if key != "shard"}
    return (
        space.model_digest,
        space.calibration_digest,
        space.similarity,
        space.eligible,
        settings,
    )


def _joined_lineage(spaces: Sequence[DesignSpace], whole: bool) -> Lineage:
    """The same in whatever order, and in however many steps, the shards were joined."""
    first = spaces[0].lineage
    keys = sorted({key for space in spaces for key in _keys(space)})
    inputs = {name: key for name, key in first.inputs.items() if not name.startswith(_PART)}
    shards = sorted(
        (shard for space in spaces for shard in _shards_of(space)),
        key=lambda shard: (shard.count, shard.number),
    )
    return Lineage(
        inputs={**inputs, **{f"{_PART}{place}": key for place, key in enumerate(keys)}},
        settings={
            **first.settings,
            "shard": None if whole else ", ".join(str(shard) for shard in shards),
        },
        parent=first.parent,
    )


def _keys(space: DesignSpace) -> list[str]:
    """Lineage keys of the shards that a design space was joined from, or its own."""
    parts = [key for name, key in space.lineage.inputs.items() if name.startswith(_PART)]
    return parts or [space.lineage.key()]


def _shards_of(space: DesignSpace) -> list[Shard]:
    written = space.lineage.settings.get("shard")
    return [Shard.parse(part) for part in written.split(",")] if written else []


def _shards(spaces: Sequence[DesignSpace]) -> str:
    return ", ".join(str(shard) for space in spaces for shard in _shards_of(space)) or "no shards"


def _names(layers: Sequence[str]) -> str:
    """`layer 'a' is`, `layers 'a', 'b' and 3 more are`."""
    told = ", ".join(f"'{name}'" for name in layers[:_TOLD])
    more = f" and {len(layers) - _TOLD} more" if len(layers) > _TOLD else ""
    return f"layer {told} is" if len(layers) == 1 else f"layers {told}{more} are"
