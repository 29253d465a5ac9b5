"""What decompose takes from a design space is computed again: altered files are bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import Trained

import lrf_core as lrf
from lrf_core.artifacts import Candidate, Cost, DesignSpace, digest_of
from lrf_core.errors import EXIT_BAD_INPUT, ArtifactError
from lrf_core.exploration import score

SETTINGS = lrf.ExploreSpec(samples=128, ranks_per_mode=4)
GOAL = lrf.Goal(params_reduction=0.4)


@pytest.fixture(scope="module")
def analysis(trained: Trained) -> lrf.Analysis:
    return lrf.analyze(trained.model, trained.data, settings=SETTINGS)


@pytest.fixture(scope="module")
def space(trained: Trained, analysis: lrf.Analysis) -> DesignSpace:
    return lrf.explore(trained.model, trained.data, analysis, settings=SETTINGS)


def decomposed(trained: Trained, space: DesignSpace, **settings: Any) -> lrf.Plan:
    spec = lrf.DecomposeSpec(refit=False, **settings)
    return lrf.decompose(trained.model, trained.data, [space], GOAL, settings=spec)[0]


def altered(space: DesignSpace, chosen: Callable[[Candidate], bool], **changes: Any) -> DesignSpace:
    """The design space with some candidates changed, as a file could have been."""
    candidates = tuple(
        candidate.model_copy(update=changes) if chosen(candidate) else candidate
        for candidate in space.candidates
    )
    return space.model_copy(update={"candidates": candidates})


def is_worst_of(space: DesignSpace, layer: str) -> Callable[[Candidate], bool]:
    worst = max((c for c in space.candidates if c.layer == layer), key=lambda c: c.error)
    return lambda candidate: candidate is worst


FREE = {"error": 0.0, "sensitivity": 0.0, "similarity": 1.0}


@pytest.mark.parametrize("minimize", ["error", "sensitivity"])
def test_a_bad_candidate_that_is_said_to_be_perfect_is_refused(
    trained: Trained, space: DesignSpace, minimize: str
) -> None:
    poisoned = altered(space, is_worst_of(space, "conv1b"), **FREE)
    with pytest.raises(ArtifactError) as caught:
        decomposed(trained, poisoned, minimize=minimize)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    message = str(caught.value)
    assert message.startswith("design_space.parquet: layer 'conv1b' by ")
    assert "has error 0 there, and 0." in message
    assert "delete both and run explore again" in message


@pytest.mark.parametrize("what", ["sensitivity", "similarity"])
def test_one_altered_score_is_enough(trained: Trained, space: DesignSpace, what: str) -> None:
    poisoned = altered(space, is_worst_of(space, "hidden"), **{what: FREE[what]})
    settings = {
        "sensitivity": {"minimize": "sensitivity"},
        "similarity": {"policy": "threshold"},
    }[what]
    named = {"sensitivity": "sensitivity", "similarity": "dissimilarity"}[what]
    with pytest.raises(ArtifactError, match=rf"layer 'hidden' .* has {named} 0 there, and"):
        decomposed(trained, poisoned, **settings)


@pytest.mark.parametrize("cost", ["params", "macs"])
def test_costs_are_those_of_the_chain(trained: Trained, space: DesignSpace, cost: str) -> None:
    plan = decomposed(trained, space)
    chosen = plan.replaced()[0]
    fewer = {**chosen.cost.model_dump(), cost: 1}
    poisoned = altered(space, lambda c: c == chosen, cost=Cost(**fewer))
    what = {"params": "parameters", "macs": "multiply-adds"}[cost]
    with pytest.raises(ArtifactError, match=f"layer '{chosen.layer}' .* has {what} 1 there, and"):
        decomposed(trained, poisoned)


@pytest.mark.parametrize("ranks", [(0,), (10**6,), (1, 1, 1, 1, 1, 1)])
def test_ranks_must_fit_the_kernel(
    trained: Trained, space: DesignSpace, ranks: tuple[int, ...]
) -> None:
    chosen = decomposed(trained, space).replaced()[0]
    poisoned = altered(space, lambda c: c == chosen, ranks=ranks)
    with pytest.raises(ArtifactError, match=rf"layer '{chosen.layer}' .* do not fit a kernel"):
        decomposed(trained, poisoned)


@pytest.mark.parametrize("change", [{"method": "fourier"}, {"form": "sideways"}])
def test_methods_must_apply_to_the_layer(
    trained: Trained, space: DesignSpace, change: dict[str, str]
) -> None:
    chosen = decomposed(trained, space).replaced()[0]
    poisoned = altered(space, lambda c: c == chosen, **change)
    with pytest.raises(ArtifactError, match=rf"layer '{chosen.layer}'"):
        decomposed(trained, poisoned)


def test_scores_of_two_candidates_cannot_be_swapped(trained: Trained, space: DesignSpace) -> None:
    own = [c for c in space.candidates if c.layer == "conv1b"]
    best, worst = (pick(own, key=lambda c: c.error) for pick in (min, max))
    scores = ("error", "sensitivity", "similarity")
    swapped = {
        id(one): {name: getattr(other, name) for name in scores}
        for one, other in ((best, worst), (worst, best))
    }
    candidates = tuple(c.model_copy(update=swapped.get(id(c), {})) for c in space.candidates)
    with pytest.raises(ArtifactError, match=r"layer 'conv1b' .* has error"):
        decomposed(trained, space.model_copy(update={"candidates": candidates}))


def test_a_candidate_of_no_layer_is_refused(trained: Trained, space: DesignSpace) -> None:
    poisoned = altered(space, is_worst_of(space, "conv1b"), layer="nowhere")
    with pytest.raises(ArtifactError, match="'nowhere' is not among the layers"):
        decomposed(trained, poisoned)


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-1.0"])
def test_a_file_with_impossible_scores_is_no_design_space(
    space: DesignSpace, tmp_path: Path, score: str
) -> None:
    poisoned = altered(space, is_worst_of(space, "conv1b"), error=float(score))
    with pytest.raises(ArtifactError, match=r"no DesignSpace of this version: .*error"):
        DesignSpace.load(poisoned.save(tmp_path))


def test_an_altered_cache_entry_with_a_sound_checksum_is_found_out(
    trained: Trained, analysis: lrf.Analysis, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"cache": str(tmp_path), "methods": ("tucker", "svd")})
    lrf.explore(trained.model, trained.data, analysis, settings=settings)
    for file in tmp_path.glob("scores-1/*/*.json"):
        entry = json.loads(file.read_text())
        if entry["address"]["layer"] == "conv1b":
            entry["candidates"] = [{**each, **FREE} for each in entry["candidates"]]
            del entry["sha256"]
            file.write_text(json.dumps({**entry, "sha256": digest_of(entry)}))
    poisoned = lrf.explore(trained.model, trained.data, analysis, settings=settings)
    assert {c.error for c in poisoned.candidates if c.layer == "conv1b"} == {0.0}
    with pytest.raises(ArtifactError, match=r"layer 'conv1b' .* has error 0 there"):
        decomposed(trained, poisoned)


@pytest.mark.parametrize("many", [score._MANY, 1], ids=["few rows", "many rows"])
def test_scores_hold_for_every_metric(
    trained: Trained, analysis: lrf.Analysis, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many rows, similarities are taken on every second one."""
    monkeypatch.setattr(score, "_MANY", many)
    for similarity in ("ssim", "cka", "nmse"):
        settings = SETTINGS.model_copy(
            update={"similarity": similarity, "methods": ("tucker", "svd")}
        )
        space = lrf.explore(trained.model, trained.data, analysis, settings=settings)
        assert decomposed(trained, space, policy="threshold").replaced()
