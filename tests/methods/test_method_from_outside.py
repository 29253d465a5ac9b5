"""A method that a user registers competes like those of the package."""

from __future__ import annotations

import pytest
from tiny import Trained

import lrf_core as lrf
from lrf_core import methods
from lrf_core.exploration.shards import exploring_seconds
from lrf_core.methods import base
from lrf_core.methods.svd import principal_directions
from lrf_core.methods.two_factors import two_factor_method

OURS = two_factor_method("ours", principal_directions, exploring_cost=(1.0, 0.0, 0.0))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_registry", dict(base._registry))
    methods.register(OURS)


@pytest.mark.usefixtures("registered")
def test_a_registered_method_is_explored_and_chosen(trained: Trained) -> None:
    model, data = trained.model, trained.data
    everything = lrf.analyze(model, data, settings=lrf.ExploreSpec(samples=64))
    assert "ours" in {name for record in everything.eligible() for name in record.methods}
    settings = lrf.ExploreSpec(samples=64, methods=("ours",))
    analysis = lrf.analyze(model, data, settings=settings)
    (hidden,) = [record for record in analysis.eligible() if record.name == "hidden"]
    assert hidden.methods == ("ours",)
    assert exploring_seconds(hidden) == 1.0
    space = lrf.explore(model, data, analysis, settings=settings)
    assert {candidate.method for candidate in space.candidates} == {"ours"}
    goal = lrf.Goal(max_params=model.count_params() - 1)
    plan, factorized = lrf.decompose(model, data, [space], goal)
    assert {choice.method for choice in plan.replaced()} == {"ours"}
    assert factorized.count_params() == plan.after.params < model.count_params()


def test_a_method_that_is_not_registered_is_rejected(trained: Trained) -> None:
    with pytest.raises(lrf.LrfError, match="unknown method 'ours'"):
        lrf.analyze(trained.model, trained.data, settings=lrf.ExploreSpec(methods=("ours",)))
