"""What is done with the output of kfp.local."""

from __future__ import annotations

import builtins
import io
import logging
import sys
import threading

import pytest

from components.step import StepLine
from pipelines.relay import Relay, relayed


def test_only_the_lines_of_components_are_said_and_all_are_kept() -> None:
    log, said = io.StringIO(), list[str]()
    relay = Relay(log, said.append)
    with relayed(relay):
        print("    [lrf explore] Calibrating: 3 of 9")
        print("[KFP Executor INFO]: Got executor_input")
        logging.StreamHandler(sys.stdout).emit(
            logging.LogRecord("kfp", logging.INFO, "", 0, "Task 'explore'", None, None)
        )
    assert said == ["explore: Calibrating: 3 of 9"]
    assert log.getvalue().count("\n") == 3


def test_what_is_logged_between_steps_is_kept_too(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    with relayed(Relay(log, print)):
        logging.error("Task 'explore' finished with status FAILURE")
    assert "FAILURE" in log.getvalue()
    assert capsys.readouterr().err == ""


def test_the_first_failure_counts() -> None:
    said = list[str]()
    relay = Relay(io.StringIO(), said.append)
    relay.write("[lrf explore] failed, exit code 2: too few samples\n")
    relay.write("[lrf explore] failed, exit code 1: later\n")
    assert relay.failed == StepLine("explore", "too few samples", 2)
    assert said == []


def test_a_crash_is_known_by_its_last_line() -> None:
    relay = Relay(io.StringIO(), print)
    relay.write("Traceback (most recent call last):\n")
    relay.write("    tensorflow.python.framework.errors_impl.ResourceExhaustedError: no memory\n")
    assert relay.last_exception.endswith("ResourceExhaustedError: no memory")


def test_lines_of_steps_side_by_side_do_not_mix() -> None:
    said = list[str]()
    relay = Relay(io.StringIO(), said.append)

    def step(name: str) -> None:
        for i in range(200):
            relay.write("    ")
            relay.write(f"[lrf {name}] line ")
            relay.write(f"{i}\n")

    threads = [threading.Thread(target=step, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == sorted(f"{n}: line {i}" for n in "abc" for i in range(200))


def test_what_kfp_changes_for_every_thread_is_put_back() -> None:
    handlers = logging.getLogger().handlers[:]
    with relayed(Relay(io.StringIO(), print)):
        builtins.print = lambda *values: None
        logging.getLogger().handlers.clear()
    assert builtins.print is print
    assert logging.getLogger().handlers == handlers
    assert "print" in repr(builtins.print)
