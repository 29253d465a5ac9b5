"""A store that does not answer is a transient error (exit code 1) wherever it is opened."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lrf_core.errors import EXIT_FAILURE, UnreachableStorageError
from lrf_core.exploration.cache import open_cache
from lrf_core.storage import open_store
from lrf_core.training.checkpoint import open_checkpoints


@pytest.mark.parametrize(
    "use",
    [
        lambda uri: open_store(uri).check(),
        open_cache,
        lambda uri: open_checkpoints(uri, {"model": "digest"}),
    ],
    ids=["store", "cache of scores", "checkpoints"],
)
def test_a_store_that_does_not_answer_is_a_transient_error(
    use: Callable[[str], object], no_s3_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-words")
    with pytest.raises(UnreachableStorageError, match=r"127\.0\.0\.1:9") as caught:
        use("s3://bucket/prefix")
    assert caught.value.exit_code == EXIT_FAILURE
