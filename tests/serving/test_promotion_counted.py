"""Each promotion is counted once, by how it ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from promotions import World

from lrf_core import telemetry
from lrf_core.errors import LrfError, PublishRefusedError
from lrf_core.stages.promote import NotPromotedError, preview, roll_back


def counted(act: Callable[[], object], *expected: type[LrfError]) -> dict[str, float]:
    """How often each outcome was counted meanwhile."""
    with telemetry.fresh() as metrics:
        if expected:
            with pytest.raises(expected):
                act()
        else:
            act()
    return {
        sample.labels["outcome"]: sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "lrf_promotions_total"
    }


def test_promoted_served_already_and_undone_by_a_person(world: World) -> None:
    assert counted(world.promote) == {"promoted": 1.0}
    assert counted(world.promote) == {"already_served": 1.0}
    assert counted(lambda: roll_back(world.settings())) == {"undone": 1.0}


def test_rolled_back(world: World) -> None:
    world.wrong("new")
    assert counted(world.promote, NotPromotedError) == {"rolled_back": 1.0}


def test_what_was_only_looked_at_is_not_counted(world: World) -> None:
    name = "no-such-release"
    store = world.store.as_uri()
    assert counted(lambda: preview(store, name, "latest", world.settings()), LrfError) == {}
    refused = (PublishRefusedError, LrfError)
    assert counted(lambda: world.promote("99"), *refused) == {}
