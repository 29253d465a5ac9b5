"""Progress is silent in a library, and says what is left when it is shown."""

from __future__ import annotations

import logging

import pytest

from lrf_core.console import progress


def test_silent_unless_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([1, 2, 3], "Counting")) == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_lines_say_how_much_is_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO, "lrf"), progress.shown():
        list(progress.track(range(4), "Counting"))
    assert caplog.messages[0] == "Counting: 1 of 4, 18 s left"
    assert caplog.messages[-1].startswith("Counting: 4 of 4 in ")


def test_quick_work_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lrf"), progress.shown():
        list(progress.track(range(4), "Counting"))
    assert caplog.messages == []
