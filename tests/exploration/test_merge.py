"""Shards of one exploration joined to one design space."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from lrf_core.artifacts import Candidate, Cost, DesignSpace, Lineage
from lrf_core.errors import ArtifactError
from lrf_core.exploration.merge import check_whole, in_order, merged, read_design_space

ELIGIBLE = ("a", "b", "c", "d")


def candidate(layer: str, method: str = "svd", form: str = "", *ranks: int) -> Candidate:
    return Candidate(
        layer=layer,
        method=method,
        form=form,
        ranks=ranks or (2,),
        cost=Cost(params=8, macs=16),
        error=0.1,
        similarity=0.9,
        sensitivity=0.2,
    )


def space(shard: str | None, *layers: str, samples: int = 64, **changes: Any) -> DesignSpace:
    about = {"model_digest": "m", "calibration_digest": "c", "similarity": "nmse", **changes}
    return DesignSpace(
        lineage=Lineage(
            inputs={"model": "m", "data": "d"},
            settings={"explore": {"samples": samples}, "shard": shard, "seed": 3},
            parent="a",
        ),
        layers=layers,
        eligible=ELIGIBLE,
        candidates=tuple(candidate(layer) for layer in layers),
        **about,
    )


SHARDS = [space("1/3", "a", "d"), space("2/3", "c"), space("3/3", "b")]


def same(one: DesignSpace, other: DesignSpace) -> bool:
    """But for the time they were made at."""

    def content(space: DesignSpace) -> tuple[Any, ...]:
        return space.lineage.key(), space.model_dump(exclude={"lineage"})

    return content(one) == content(other)


def test_candidates_are_ordered_by_layer_method_form_and_ranks() -> None:
    ordered = [
        candidate("b", "tucker"),
        candidate("b", "cp", "merged", 2),
        candidate("b", "cp", "merged", 10),
        candidate("b", "cp", "per axis", 1),
        candidate("b", "of_another_package"),
        candidate("a", "svd", "", 3),
    ]
    for shuffled in itertools.permutations(ordered):
        assert list(in_order(shuffled, ("b", "a"))) == ordered


def test_the_whole_has_every_layer_and_candidate_and_names_its_shards() -> None:
    whole = merged(SHARDS)
    assert whole.layers == ELIGIBLE
    assert [candidate.layer for candidate in whole.candidates] == list(ELIGIBLE)
    assert whole.lineage.settings == {"explore": {"samples": 64}, "shard": None, "seed": 3}
    keys = {name: key for name, key in whole.lineage.inputs.items() if name.startswith("shard_")}
    assert sorted(keys.values()) == sorted(shard.lineage.key() for shard in SHARDS)


def test_neither_the_order_nor_the_steps_of_joining_matter() -> None:
    whole = merged(SHARDS)
    for order in itertools.permutations(SHARDS):
        assert same(merged(order), whole)
        assert same(merged([merged(order[:2]), order[2]]), whole)


def test_one_space_is_what_it_was() -> None:
    one = space(None, *ELIGIBLE)
    assert merged([one]) == one


def test_the_whole_survives_being_written(tmp_path: Path) -> None:
    whole = merged([*SHARDS, space("4/4")])
    assert DesignSpace.load(whole.save(tmp_path / "space")) == whole


@pytest.mark.parametrize(
    ("spaces", "told"),
    [
        ([], "no design space"),
        ([SHARDS[0], space("2/3", "b", model_digest="n")], "explore one model"),
        ([SHARDS[0], space("2/3", "b", calibration_digest="x")], "calibration samples"),
        ([SHARDS[0], space("2/3", "b", similarity="cka")], "similarities"),
        ([SHARDS[0], space("2/3", "b", samples=65)], "other settings"),
        ([SHARDS[0], space("2/2", "b", "a")], r"'a' is in more than one .*1/3, 2/2"),
    ],
)
def test_what_does_not_belong_together_is_refused(spaces: list[DesignSpace], told: str) -> None:
    with pytest.raises(ArtifactError, match=told):
        merged(spaces)


def test_a_missing_shard_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"'b', 'c' are in no design space: shard 2/3, 3/3 is"):
        check_whole(merged(SHARDS[:1]))
    with pytest.raises(ArtifactError, match=r"layer 'b' is in no design space: shard 3/3 is"):
        check_whole(merged(SHARDS[:2]))
    check_whole(merged(SHARDS))


def test_an_empty_shard_may_be_missing() -> None:
    check_whole(merged([space("1/5", "a", "b"), space("2/5", "c", "d")]))


def written(folder: Path, *spaces: DesignSpace) -> list[Path]:
    """As `lrf explore` names them."""
    files = []
    for each in spaces:
        shard = each.lineage.settings["shard"]
        name = f"-{shard.replace('/', '-of-')}" if shard else ""
        files.append(each.save(folder / f"design_space{name}.parquet"))
    return files


def test_the_shards_in_a_folder_are_read_as_one(tmp_path: Path) -> None:
    written(tmp_path, *SHARDS)
    assert same(read_design_space(tmp_path), merged(SHARDS))
    # Also once they were joined there, and one of them was explored again.
    merged(SHARDS).save(tmp_path)
    assert same(read_design_space(tmp_path), merged(SHARDS))


def test_more_than_nine_shards_are_read(tmp_path: Path) -> None:
    many = [space(f"{i}/12", *ELIGIBLE[i - 1 : i]) for i in range(1, 13)]
    written(tmp_path, *many)
    assert same(read_design_space(tmp_path), merged(many))


def test_files_that_are_named_are_read_instead(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    files = written(tmp_path / "elsewhere", *SHARDS)
    written(tmp_path, space(None, *ELIGIBLE, samples=8))
    assert same(read_design_space(tmp_path, files), merged(SHARDS))


def test_one_exploration_stands_for_its_own_shards(tmp_path: Path) -> None:
    one = space(None, *ELIGIBLE)
    written(tmp_path, one, SHARDS[0])
    assert read_design_space(tmp_path) == one


def test_what_cannot_be_told_apart_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        read_design_space(tmp_path)
    written(tmp_path, *SHARDS[:2])
    with pytest.raises(ArtifactError, match="shard 3/3 is missing"):
        read_design_space(tmp_path)
    written(tmp_path, space(None, *ELIGIBLE, samples=8))
    with pytest.raises(ArtifactError, match=r"another exploration.*--space"):
        read_design_space(tmp_path)
    written(tmp_path, space("1/2", "a"))
    with pytest.raises(ArtifactError, match="shards of 2 and of 3"):
        read_design_space(tmp_path)
