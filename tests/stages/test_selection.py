"""Of several plans the smallest that passes is picked, by the whole gate with its confidence."""

from __future__ import annotations

from sound_verdict import GATE, sound_verdict

from lrf_core.stages.selection import select_candidate

AS_MEASURED = GATE.model_copy(update={"confidence": None})


def test_a_smaller_plan_that_the_samples_do_not_prove_is_passed_over() -> None:
    """0.9 points lost of at most 1.0: within the limit as measured, and not with 95% confidence."""
    numbers = {"lost": 9, "params": (1000, 300), "candidates": 2}
    larger = {"lost": 1, "params": (1000, 500), "candidates": 2}
    judged = [sound_verdict(**numbers), sound_verdict(**larger)]  # type: ignore[arg-type]
    assert [verdict.passed for verdict in judged] == [False, True]
    assert "too few samples to be that sure" in judged[0].failed()[0].note
    assert select_candidate(judged) == 1
    as_measured = [
        sound_verdict(gate=AS_MEASURED, **each)  # type: ignore[arg-type]
        for each in (numbers, larger)
    ]
    assert select_candidate(as_measured) == 0


def test_where_none_passes_the_one_that_fails_least_is_picked() -> None:
    judged = [sound_verdict(lost=40), sound_verdict(lost=20), sound_verdict(lost=20, apart=1.0)]
    assert not any(verdict.passed for verdict in judged)
    assert select_candidate(judged) == 1
