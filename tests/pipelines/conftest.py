"""The API that runs are submitted to, without a token of whoever runs the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kfp_server import Api, serving

from pipelines.submit import TOKEN


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.delenv(TOKEN, raising=False)
    with serving() as state:
        yield state
