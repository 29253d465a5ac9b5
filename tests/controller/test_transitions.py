"""How requests move: limits, waits, and what is final."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from ledgers import NOW, released, request

from pipelines.controller import transitions
from pipelines.controller.engine import RunEnd
from pipelines.controller.request import Request
from pipelines.controller.transitions import Limits

LIMITS = Limits(parallel=2, attempts=3, backoff_s=60.0)


def running(attempts: int = 1) -> Request:
    return request(state="running", attempts=attempts, claim="me", run_id="run")


def test_the_oldest_start_first_and_no_more_than_may_run() -> None:
    waiting = [request(number) for number in (5, 3, 4)]
    assert transitions.to_start(waiting, LIMITS, NOW) == [waiting[1], waiting[2]]
    assert transitions.to_start([*waiting, running()], LIMITS, NOW) == [waiting[1]]
    assert transitions.to_start([*waiting, running(), running()], LIMITS, NOW) == []
    three = [running(), running(), running()]  # after `parallel` was lowered
    assert transitions.to_start([*waiting, *three], LIMITS, NOW) == []


def test_a_failure_that_may_pass_waits_and_then_is_given_up() -> None:
    failed = RunEnd("failed", "no space left")
    first = transitions.ended(running(1), failed, LIMITS, NOW, 0.5)
    assert (first.state, first.run_id, first.claim) == ("waiting", None, None)
    assert first.not_before == NOW + timedelta(seconds=60)
    assert transitions.to_start([first], LIMITS, NOW + timedelta(seconds=59)) == []
    assert transitions.to_start([first], LIMITS, NOW + timedelta(seconds=60)) == [first]
    second = transitions.ended(running(2), failed, LIMITS, NOW, 0.5)
    assert second.not_before == NOW + timedelta(seconds=120)
    last = transitions.ended(running(3), failed, LIMITS, NOW, 0.5)
    assert (last.state, last.reason) == ("failed", "given up after 3 attempts: no space left")


def test_what_would_fail_again_is_final_at_once() -> None:
    bad = transitions.ended(running(), RunEnd("bad_input", "no data"), LIMITS, NOW, 0.5)
    assert (bad.state, bad.reason) == ("failed", "no data")
    no = transitions.ended(running(), RunEnd("refused", "3 points lost"), LIMITS, NOW, 0.5)
    assert (no.state, no.reason) == ("refused", "3 points lost")
    yes = transitions.ended(running(), RunEnd("published", result=released("a")), LIMITS, NOW, 0.5)
    assert (yes.state, yes.result, yes.is_final) == ("published", released("a"), True)


def test_an_attempt_that_could_not_be_started_does_not_count() -> None:
    claimed = transitions.claimed(request(), "me", NOW)
    assert (claimed.state, claimed.attempts, claimed.run_id) == ("running", 1, None)
    back = transitions.returned(claimed, "the API is down", LIMITS, NOW, 0.5)
    assert (back.state, back.attempts, back.reason) == ("waiting", 0, "the API is down")


def test_a_clock_that_was_set_back_makes_nothing_wait_for_ever() -> None:
    waiting = request(not_before=NOW + timedelta(days=365))
    assert transitions.to_start([waiting], LIMITS, NOW) == [waiting]


@given(backoff=st.floats(0.001, 1e6), attempts=st.integers(0, 10_000), chance=st.floats(0, 1))
def test_no_wait_is_longer_than_the_longest(backoff: float, attempts: int, chance: float) -> None:
    limits = Limits(1, 3, backoff)
    assert 0 < limits.wait_s(attempts, chance) <= limits.longest_wait_s()
