"""A job: one command or one step of a pipeline, whose metrics are pushed when it ends."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lrf_core.redaction import shown
from lrf_core.telemetry.pushgateway import push
from lrf_core.telemetry.recording import fresh, stage

RUN_VARIABLE = "LRF_RUN_ID"

# What kfp puts in place of this is the run's id; where it put nothing, it is none.
_PLACEHOLDER = "{{"


@contextmanager
def job(step: str, part: str | int = "") -> Iterator[None]:
    """Run a job as a stage of its own; push its metrics when it ends, also when it fails.

    Without LRF_PUSHGATEWAY nothing is sent. A gateway that cannot be used is one warning.

    Args:
        step: the command or the component.
        part: tells it from others of the same step in the same run: the number of a shard or plan.
    """
    grouping = {"run": _run_id(), "step": step, "part": str(part)}
    with fresh() as metrics:
        try:
            with stage(step):
                yield
        finally:
            # The gateway would take a group without a label for one with the label empty.
            push(metrics.registry, {key: shown(value) for key, value in grouping.items() if value})


def _run_id() -> str:
    """Of the pipeline run; else one of this process alone, so that it overwrites nothing."""
    for variable in (RUN_VARIABLE, "KFP_RUN_ID"):
        given = os.environ.get(variable, "")
        if given and _PLACEHOLDER not in given:
            return given
    return f"{socket.gethostname()}-{int(time.time())}-{os.getpid()}"
