"""Shards of one exploration joined to one design space."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrf_core.artifacts import Candidate, Cost, DesignSpace, Lineage
from lrf_core.errors import ArtifactError
from lrf_core.exploration.merge import merged


def shard(index: int, *layers: str, **changes: str) -> DesignSpace:
    candidates = tuple(
        Candidate(
            layer=layer,
            method="svd",
            ranks=(2,),
            cost=Cost(params=8, macs=16),
            error=0.1,
            similarity=0.9,
            sensitivity=0.2,
        )
        for layer in layers
    )
    lineage = Lineage(
        inputs={"model": "m", "data": "d"}, settings={"shard": index, "seed": 3}, parent="a"
    )
    about = {"model_digest": "m", "calibration_digest": "c", "similarity": "nmse", **changes}
    return DesignSpace(lineage=lineage, layers=layers, candidates=candidates, **about)


def test_the_whole_has_every_layer_and_candidate_and_names_its_shards() -> None:
    parts = [shard(0, "a", "b"), shard(1, "c")]
    whole = merged(parts)
    assert whole.layers == ("a", "b", "c")
    assert [candidate.layer for candidate in whole.candidates] == ["a", "b", "c"]
    assert whole.lineage.settings == {"shard": None, "seed": 3}
    assert whole.lineage.inputs == {
        "model": "m",
        "data": "d",
        "shard_0": parts[0].lineage.key(),
        "shard_1": parts[1].lineage.key(),
    }


def test_the_whole_survives_being_written(tmp_path: Path) -> None:
    whole = merged([shard(0, "a"), shard(1)])
    assert DesignSpace.load(whole.save(tmp_path / "space")) == whole


@pytest.mark.parametrize(
    ("spaces", "told"),
    [
        ([], "no design space"),
        ([shard(0, "a"), shard(1, "b", model_digest="n")], "explore one model"),
        ([shard(0, "a"), shard(1, "b", calibration_digest="x")], "calibration samples"),
        ([shard(0, "a"), shard(1, "b", similarity="cka")], "similarities"),
        ([shard(0, "a"), shard(1, "b", "a")], "more than one"),
    ],
)
def test_what_does_not_belong_together_is_refused(spaces: list[DesignSpace], told: str) -> None:
    with pytest.raises(ArtifactError, match=told):
        merged(spaces)
