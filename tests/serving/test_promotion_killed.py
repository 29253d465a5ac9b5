"""A promotion that is killed or interrupted at any moment can be finished, or undone."""

from __future__ import annotations

import copy
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kserve_api import NAME, NAMESPACE, SERVICE
from promotions import World

from lrf_core.serving.service import InferenceService
from lrf_core.stages.promotable import check_release
from lrf_core.stages.promote import NotPromotedError, roll_back

_TESTS = Path(__file__).parents[1]


class KilledError(BaseException):
    """Like kill -9: nothing that promotes catches it."""


@contextmanager
def dying_at(request: int, after: bool, error: BaseException) -> Iterator[Callable[[], int]]:
    """Let the nth request to the API be the last thing that happens, or not quite happen."""
    count, ask = 0, InferenceService._ask

    def counted(self: InferenceService, verb: str, call: Any) -> Any:
        nonlocal count
        count += 1
        if count == request and not after:
            raise error
        try:
            return ask(self, verb, call)
        finally:
            if count == request:
                raise error

    InferenceService._ask = counted  # type: ignore[method-assign]
    try:
        yield lambda: count
    finally:
        InferenceService._ask = ask  # type: ignore[method-assign]


@pytest.fixture
def checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same release is not checked again for each run: these tests are about the cluster."""
    found: dict[str, Any] = {}

    def check(store: Any, release: Any, *settings: Any) -> Any:
        if release.version not in found:
            found[release.version] = check_release(store, release, *settings)
        return found[release.version]

    # The function has the module's name in its package.
    stage = importlib.import_module("lrf_core.stages.promote")
    monkeypatch.setattr(stage, "check_release", check)


@pytest.mark.usefixtures("checked_once")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_request_it_goes_on(world: World, after: bool) -> None:
    """Each request to the API in turn is the last one of the first run."""
    world.cluster.reads_until_ready = 1
    request, ended = 0, False
    while not ended:
        request += 1
        world.restart()
        try:
            with dying_at(request, after, KilledError()):
                world.promote(canary=[50, 100])
            ended = True
        except KilledError:
            done = world.promote(canary=[50, 100])
            assert done.outcome in ("promoted", "already_served")
        predictor = world.cluster.service["spec"]["predictor"]
        assert predictor["model"]["storageUri"] == world.uri("new")
        assert "canaryTrafficPercent" not in predictor
        assert world.cluster.shares() == {world.uri("new"): 100}
        assert len(world.cluster.revisions) == 2
        shares = [shares.get(world.uri("new"), 0) for shares in world.cluster.history]
        assert shares == sorted(shares)
    assert request > 10


@pytest.mark.usefixtures("checked_once")
def test_killed_while_it_rolls_back_it_can_be_undone(world: World) -> None:
    world.cluster.reads_until_ready = 1
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.wrong()
    request, ended, undone = 4, False, 0
    while not ended:
        request += 1
        world.restart()
        try:
            with dying_at(request, True, KilledError()):
                world.promote()
        except NotPromotedError:
            ended = True
        except KilledError:
            if world.cluster.spec_of_user() != before:
                assert roll_back(world.settings()).outcome == "rolled_back"
                undone += 1
        assert world.cluster.spec_of_user() == before
        assert not any(shares.get(world.uri("new")) for shares in world.cluster.history)
    assert undone > 5


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt; a process started in the background would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_rolls_back(world: World) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())

    def asked(host: str) -> Any:
        if world.cluster.shares().get(world.uri("new")) == 10:
            # As Ctrl-C does, in the main thread, which waits for this answer.
            signal.raise_signal(signal.SIGINT)
        return world.model_at(host)

    world.ingress.model_at = asked
    with pytest.raises(KeyboardInterrupt):
        world.promote()
    assert world.cluster.spec_of_user() == before
    assert "champion" not in world.aliases()


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_leaves_it_and_says_so(world: World, caplog) -> None:
    def interrupted(verb: str, number: int) -> None:
        new = world.cluster.shares().get(world.uri("new"))
        if (new == 10 and verb == "get") or (interrupts and verb == "patch" and new == 10):
            interrupts.append(number)
            signal.raise_signal(signal.SIGINT)

    interrupts: list[int] = []
    world.cluster.on_request = interrupted
    with pytest.raises(KeyboardInterrupt):
        world.promote()
    assert f"lrf promote --rollback --service {SERVICE}" in caplog.text
    assert world.cluster.service["spec"]["predictor"]["model"]["storageUri"] == world.uri("new")
    world.cluster.on_request = lambda verb, number: None
    assert world.promote().outcome == "promoted"


def command(*arguments: str) -> list[str]:
    """`lrf promote` in a process of its own."""
    return [sys.executable, "-m", "lrf_core", "promote", *arguments]


def environment() -> dict[str, str]:
    paths = [str(_TESTS.parent), str(_TESTS), str(_TESTS / "serving")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_a_process_that_is_killed_leaves_a_service_that_goes_on(world: World) -> None:
    arguments = ["digits", "--from", world.store.as_uri(), "--service", f"{NAMESPACE}/{NAME}"]
    process = subprocess.Popen(
        command(*arguments, "--url", world.ingress.url), env=environment(), stderr=subprocess.PIPE
    )

    def killed(verb: str, number: int) -> None:
        if world.cluster.shares().get(world.uri("new")) == 10:
            process.kill()

    world.cluster.on_request = killed
    _, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, said.decode()
    world.cluster.on_request = lambda verb, number: None
    assert world.cluster.service["spec"]["predictor"]["canaryTrafficPercent"] == 10
    done = world.promote()
    assert done.outcome == "promoted"
    assert [step.name for step in done.steps][:2] == ["move to 10%", "ready at 10%"]
