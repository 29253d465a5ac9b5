"""What is counted, in whose metrics, and that nothing is counted twice."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from exposed import exposed_by, series
from hypothesis import given
from hypothesis import strategies as st
from made_verdict import failed_verdict, made_verdict
from seaweed import Seaweed
from tiny import tiny_cnn, tiny_data
from urllib3.exceptions import ProtocolError

import lrf_core as lrf
from lrf_core import telemetry
from lrf_core.errors import DataError
from lrf_core.spec import ExploreSpec
from lrf_core.storage import open_store
from lrf_core.storage.retry import with_retries
from lrf_core.storage.transfer import PART_BYTES

SUCCESS = "lrf_stage_last_success_timestamp_seconds"


def run_nested(level: int, innermost: int, fails: bool, caught_at: int) -> None:
    """Stages in each other; the error of the innermost ends at one of those around it."""
    with telemetry.stage(f"level{level}"):
        if level == innermost:
            if fails:
                raise DataError("no samples")
            return
        with contextlib.suppress(DataError) if level == caught_at else contextlib.nullcontext():
            run_nested(level + 1, innermost, fails, caught_at)


@given(innermost=st.integers(1, 5), fails=st.booleans(), data=st.data())
def test_an_error_is_counted_once_where_it_was_raised(
    innermost: int, fails: bool, data: st.DataObject
) -> None:
    caught_at = data.draw(st.integers(0, innermost - 1))
    with telemetry.fresh() as metrics:
        run_nested(0, innermost, fails, caught_at)
        found = exposed_by(metrics.registry)
    failures = {key: value for key, value in found.items() if key[0] == "lrf_stage_failures_total"}
    where = series("lrf_stage_failures_total", stage=f"level{innermost}", cause="DataError")
    assert failures == ({where: 1.0} if fails else {})
    well = range(caught_at + 1) if fails else range(innermost + 1)
    ended = {key for key in found if key[0] == SUCCESS}
    assert ended == {series(SUCCESS, stage=f"level{level}") for level in well}


def test_the_time_of_a_stage_that_runs_again_adds_up() -> None:
    took = series("lrf_stage_duration_seconds", stage="explore")
    with telemetry.fresh() as metrics:
        with telemetry.stage("explore"):
            time.sleep(0.01)
        first = exposed_by(metrics.registry)[took]
        with telemetry.stage("explore"):
            time.sleep(0.01)
        assert exposed_by(metrics.registry)[took] >= first + 0.009


def test_a_job_starts_from_zero_in_all_threads_and_leaves_the_rest_alone() -> None:
    outside = telemetry.current()
    before = exposed_by(outside.registry)
    with telemetry.fresh() as metrics:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: telemetry.count_scored("svd", 3), range(100)))
        assert exposed_by(metrics.registry) == {
            series("lrf_candidates_scored_total", method="svd"): 300.0
        }
        with telemetry.fresh() as inner:
            assert exposed_by(inner.registry) == {}
    assert telemetry.current() is outside
    assert exposed_by(outside.registry) == before


def test_a_verdict_is_recorded_in_base_units() -> None:
    with telemetry.fresh() as metrics:
        telemetry.record_verdict(made_verdict(), "Digits")
        found = exposed_by(metrics.registry)
    assert found.pop(series("lrf_gate_judged_timestamp_seconds", model="digits")) > 1.6e9
    latency = "lrf_model_latency_seconds"
    both = {
        "lrf_model_parameters": (1000, 400),
        "lrf_model_macs": (50_000, 20_000),
        "lrf_model_weight_bytes": (4000, 1600),
        "lrf_model_accuracy_ratio": (0.91, 0.904),
    }
    expected = {
        series(name, model="digits", when=when): value
        for name, values in both.items()
        for when, value in zip(("before", "after"), values, strict=True)
    }
    for when in ("before", "after"):
        expected[series(latency, model="digits", when=when, runtime="keras")] = 0.002
        expected[series(latency, model="digits", when=when, runtime="litert")] = 0.0005
    expected[series("lrf_model_accuracy_drop_ratio", model="digits")] = 0.006
    expected[series("lrf_gate_accuracy_drop_limit_ratio", model="digits")] = 0.01
    for check in ("accuracy_drop", "fewer_parameters"):
        expected[series("lrf_gate_check_passed", model="digits", check=check)] = 1
    expected[series("lrf_gate_passed", model="digits")] = 1
    assert found == pytest.approx(expected)


def test_what_the_gate_could_not_measure_is_absent() -> None:
    verdict = failed_verdict()
    blind = verdict.candidate.model_copy(update={"accuracy": None, "litert_latency_ms": None})
    lineage = verdict.lineage.model_copy(update={"settings": {}})
    with telemetry.fresh() as metrics:
        telemetry.record_verdict(
            verdict.model_copy(
                update={"candidate": blind, "accuracy_drop": None, "lineage": lineage}
            ),
            "digits",
        )
        found = exposed_by(metrics.registry)
    names = {name for name, labels in found if ("when", "before") not in labels}
    assert not names & {
        "lrf_model_accuracy_ratio",
        "lrf_model_accuracy_drop_ratio",
        "lrf_gate_accuracy_drop_limit_ratio",
    }
    assert series(
        "lrf_model_latency_seconds", model="digits", when="after", runtime="litert"
    ) not in (found)
    assert found[series("lrf_gate_passed", model="digits")] == 0


def test_exploring_counts_candidates_and_the_cache(tmp_path: Path) -> None:
    model, data = tiny_cnn(filters=(4,)), tiny_data()
    analysis = lrf.analyze(model, data)
    settings = ExploreSpec(methods=("svd", "tucker"), samples=16, cache=tmp_path.as_uri())
    with telemetry.fresh() as metrics:
        space = lrf.explore(model, data, analysis, settings=settings)
        first = exposed_by(metrics.registry)
    scored = {
        dict(labels)["method"]: value
        for (name, labels), value in first.items()
        if name == "lrf_candidates_scored_total"
    }
    assert sum(scored.values()) == len(space.candidates)
    assert set(scored) == {candidate.method for candidate in space.candidates}
    hits = series("lrf_cache_requests_total", cache="scores", outcome="hit")
    misses = series("lrf_cache_requests_total", cache="scores", outcome="miss")
    with telemetry.fresh() as metrics:
        lrf.explore(model, data, analysis, settings=settings)
        second = exposed_by(metrics.registry)
    assert (first[hits], second[misses]) == (0, 0)
    assert second[hits] == first[misses] > 0
    assert not any(name == "lrf_candidates_scored_total" for name, _ in second)


def test_bytes_to_and_from_s3_are_counted_once(s3_settings: Seaweed, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3_settings.bucket}/telemetry/{uuid.uuid4().hex}")
    large = tmp_path / "large"
    large.write_bytes(b"x" * (PART_BYTES + 5))
    with telemetry.fresh() as metrics:
        store.put("small", b"12345")
        store.put_file("large", large)
        assert store.put_if_absent("once", b"123")
        assert not store.put_if_absent("once", b"1234567")
        assert store.get("small") == b"12345"
        store.get_file("large", tmp_path / "back")
        found = exposed_by(metrics.registry)
    moved = "lrf_storage_bytes_total"
    assert found[series(moved, direction="up")] == 5 + PART_BYTES + 5 + 3
    assert found[series(moved, direction="down")] == 5 + PART_BYTES + 5


def test_requests_that_are_sent_again_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="lrf")
    attempts = iter([ProtocolError("reset"), ProtocolError("reset"), None])

    def attempt() -> str:
        failure = next(attempts)
        if failure:
            raise failure
        return "done"

    with telemetry.fresh() as metrics:
        assert with_retries(attempt, "S3", 60.0) == "done"
        assert exposed_by(metrics.registry) == {
            series("lrf_storage_retries_total", cause="ProtocolError"): 2.0
        }
