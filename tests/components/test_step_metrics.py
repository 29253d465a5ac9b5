"""A step of a pipeline is a job: its metrics are pushed, also those of a failure."""

from __future__ import annotations

import pytest

from components.step import step
from lrf_core import telemetry
from lrf_core.errors import DataError
from lrf_core.spec import Spec
from lrf_core.telemetry import recording

SPEC = Spec(model="model.keras", data="data.npz").model_dump_json()


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], dict[str, str]]]:
    """The grouping key, and the labels of a failure, of each push."""
    monkeypatch.setenv("LRF_RUN_ID", "run-1")
    pushes: list[tuple[dict[str, str], dict[str, str]]] = []

    def push(registry: telemetry.Metrics, grouping: dict[str, str]) -> None:
        failures = [
            sample.labels
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "lrf_stage_failures_total"
        ]
        pushes.append((grouping, failures[0] if failures else {}))

    monkeypatch.setattr(recording, "push", push)
    return pushes


def test_a_step_pushes_as_run_step_and_part(
    pushed: list[tuple[dict[str, str], dict[str, str]]],
) -> None:
    with step("explore", SPEC, 0):
        pass
    with step("validate", SPEC):
        pass
    assert pushed == [
        ({"run": "run-1", "step": "explore", "part": "0"}, {}),
        ({"run": "run-1", "step": "validate"}, {}),
    ]


@pytest.mark.parametrize(("spec", "cause"), [(SPEC, "DataError"), ("no spec", "SpecError")])
def test_a_step_that_fails_pushes_the_cause(
    pushed: list[tuple[dict[str, str], dict[str, str]]], spec: str, cause: str
) -> None:
    with pytest.raises(SystemExit), step("explore", spec, 2):
        raise DataError("no samples")
    grouping = {"run": "run-1", "step": "explore", "part": "2"}
    assert pushed == [(grouping, {"stage": "explore", "cause": cause})]
