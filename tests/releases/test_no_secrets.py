"""No key is seen by anybody: not in output, logs, artifacts, the store, errors, or by `ps`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from seaweed import Seaweed
from test_signed_releases import PASSWORD, Keys
from tiny import Trained

from lrf_core.storage import open_store

ROOT = Path(__file__).parents[2]
WRONG = "wrong-secret-key-for-tests"
TOKEN = "session-token-for-tests"


class Watched:
    """A command that ended, what it printed, and all command lines that its processes had."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        hidden = ("AWS_", "LRF_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        process = subprocess.Popen(
            [sys.executable, "-m", "lrf_core", *arguments],
            env={**inherited, "PYTHONPATH": str(ROOT), "LRF_LOG_LEVEL": "debug", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen: set[str] = set()
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                for commands in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        self.seen.add(commands.read_text(errors="replace"))
                    except OSError:
                        continue  # it ended meanwhile

        watcher = threading.Thread(target=watch)
        watcher.start()
        self.out, _ = process.communicate(timeout=300)
        ended.set()
        watcher.join()
        self.code = process.returncode


@pytest.mark.slow
def test_no_key_is_seen_whether_publishing_fails_or_not(
    trained: Trained, seaweed: Seaweed, tmp_path: Path
) -> None:
    keys = Keys(tmp_path, "signing", PASSWORD)
    private = "".join(keys.private.read_text().splitlines()[1:-1])[:40]
    to, out = f"s3://{seaweed.bucket}/secrets/{uuid.uuid4().hex}", tmp_path / "out"
    (tmp_path / "spec.yaml").write_text(
        f"model: {trained.model_file}\ndata: {trained.data_file}\nout: {out}\n"
        "goal: {params_reduction: 0.2}\nfinetune: {epochs: 0}\n"
        "gate: {max_accuracy_drop: 100, max_keras_latency_ratio: 1000}\n"
        f"publish: {{to: '{to}', name: tiny, signing_key: {keys.private}}}\n"
    )
    right = {**seaweed.environment(), "LRF_SIGNING_KEY_PASSWORD": PASSWORD}
    spec = ("--spec", str(tmp_path / "spec.yaml"))
    elsewhere = "http://127.0.0.1:9"
    runs = {
        "passing": (right, 0, ["compress", *spec]),
        "again": (right, 0, ["publish", *spec]),
        "wrong key": ({**right, "AWS_SECRET_ACCESS_KEY": WRONG}, 2, ["publish", *spec]),
        "token": ({**right, "AWS_SESSION_TOKEN": TOKEN}, None, ["publish", *spec]),
        "password": ({**right, "LRF_SIGNING_KEY_PASSWORD": WRONG}, 2, ["publish", *spec]),
        "down": ({**right, "LRF_S3_ENDPOINT": elsewhere}, 1, ["publish", *spec]),
        "list": (right, 0, ["releases", "list", "--from", to]),
        "refused": (
            {**right, "AWS_SECRET_ACCESS_KEY": WRONG},
            2,
            ["releases", "verify", "tiny", "--from", to],
        ),
    }
    secrets = (seaweed.secret_key, PASSWORD, WRONG, TOKEN, private)
    for name, (environment, code, arguments) in runs.items():
        watched = Watched(environment, *arguments)
        assert code in (None, watched.code), f"{name}: {watched.out}"
        assert any("lrf_core" in command for command in watched.seen)
        for secret in secrets:
            assert secret not in watched.out, name
            assert not any(secret in command for command in watched.seen), name

    with pytest.MonkeyPatch.context() as patched:
        for setting, value in seaweed.environment().items():
            patched.setenv(setting, value)
        store = open_store(to)
        kept = {key: store.get(key) for key in store.list()}
    kept |= {str(file): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert any(key.endswith("signature.json") for key in kept)
    for where, content in kept.items():
        for secret in secrets:
            assert secret.encode() not in content, where
