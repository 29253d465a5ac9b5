"""Fixtures that many tests share: one small trained model with its data, in memory and as files."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()
# Each model would be read by a process that first imports TensorFlow; tests of that turn it on.
os.environ.setdefault("LRF_SANDBOX", "0")

from tiny import Trained, tiny_cnn, tiny_data, train_tiny  # noqa: E402

from lrf_core.models.load import save_model  # noqa: E402

pytest_plugins = ["seaweed", "faulty_proxy", "exported_once"]

# Every run tries the same examples; `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SHARED = Path(__file__).parents[2] / "shared"

# Seconds that a test may take without the mark `slow`: 20 on the machine that decides, and some for
# slower ones.
LIMIT_S = 30


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    started, used_before = time.monotonic(), sum(os.times()[:4])
    yield
    # On a busy machine tests wait for a core, and a server that ends brings its whole time along.
    took = min(time.monotonic() - started, sum(os.times()[:4]) - used_before)
    if took > LIMIT_S and item.get_closest_marker("slow") is None:
        pytest.fail(f"took {took:.0f} s of a core; make it faster, or mark it slow", pytrace=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    data = tiny_data(noise=60.0)
    model = train_tiny(tiny_cnn(), data, epochs=6)
    x_train, y_train = data.train.arrays()
    x_test, y_test = data.test.arrays()
    np.savez(folder / "tiny.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    save_model(model, folder / "tiny.keras")
    return Trained(model, data, folder / "tiny.keras", folder / "tiny.npz")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test fetches or unpacks is not found by another, nor left behind."""
    monkeypatch.setenv("LRF_CACHE", str(tmp_path_factory.getbasetemp() / f"cache-{uuid.uuid4()}"))


@pytest.fixture
def shared() -> Path:
    """Large models and images that are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of shared models and images beside the repository")
    return SHARED
