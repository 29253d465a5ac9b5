"""Where the keys of S3 may come from, and that none is ever shown."""

from __future__ import annotations

import base64
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from json_api import Asked, json_api, kubeconfig
from seaweed import Seaweed

from lrf_core.errors import StorageError
from lrf_core.storage import open_store, settings
from lrf_core.storage.s3 import S3Store

SECRET = "a-secret-key-that-no-one-may-see"


def failure(use: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as caught:
        use()
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mounted(folder: Path, **values: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(value)
    return folder


@pytest.mark.parametrize(
    "names", [("accesskey", "secretkey"), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
)
def test_keys_may_come_from_a_mounted_secret(
    seaweed: Seaweed,
    no_s3_settings: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    names: tuple[str, str],
) -> None:
    keys = dict(zip(names, (seaweed.access_key, seaweed.secret_key + "\n"), strict=True))
    monkeypatch.setenv("LRF_S3_KEYS", str(mounted(tmp_path / "secret", **keys)))
    monkeypatch.setenv("LRF_S3_ENDPOINT", seaweed.endpoint)

    open_store("s3://releases/keys").check()


def test_rotated_keys_are_read_by_the_next_store(
    seaweed: Seaweed, no_s3_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = mounted(tmp_path / "secret", accesskey=seaweed.access_key, secretkey="old")
    monkeypatch.setenv("LRF_S3_KEYS", str(folder))
    monkeypatch.setenv("LRF_S3_ENDPOINT", seaweed.endpoint)
    assert "SignatureDoesNotMatch" in failure(lambda: open_store("s3://releases/k").get("key"))

    mounted(folder, secretkey=seaweed.secret_key)

    open_store("s3://releases/k").check()


def test_a_session_token_goes_with_the_keys(
    no_s3_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = mounted(tmp_path / "secret", accesskey="a", secretkey="b", token="c\n")
    monkeypatch.setenv("LRF_S3_KEYS", str(folder))
    store = open_store("s3://releases/k")

    assert isinstance(store, S3Store)
    provider = store.server.client._provider
    assert provider is not None
    assert provider.retrieve().session_token == "c"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LRF_S3_KEYS", "no/such/folder", "which is no folder; mount the secret there"),
        ("LRF_S3_KEYS", "empty", "has no accesskey and secretkey; it must hold"),
        ("LRF_S3_KEYS", "half", "has no secretkey; it must hold"),
        ("LRF_S3_KEYS", "blank", "a blank, a line end or a non-ASCII character; give the files in"),
        ("LRF_S3_KEYS", "binary", "are no text"),
        ("LRF_S3_SECRET", "no-namespace", "write namespace/name"),
        ("LRF_S3_SECRET", "namespace/../name", "write namespace/name"),
        ("LRF_S3_ADDRESSING", "vhost", "write path (https://host/bucket), virtual"),
        ("LRF_S3_RETRY_S", "long", "write seconds from 0 (never) to 3600"),
        ("LRF_S3_RETRY_S", "-1", "write seconds from 0 (never) to 3600"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    s3_settings: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    mounted(tmp_path / "empty")
    mounted(tmp_path / "half", accesskey=SECRET)
    mounted(tmp_path / "blank", accesskey=f"{SECRET} x", secretkey=SECRET)
    mounted(tmp_path / "binary", accesskey=SECRET)
    (tmp_path / "binary" / "secretkey").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv(name, value)

    said = failure(lambda: open_store("s3://releases"))
    assert message in said
    assert name in said


def test_two_sources_of_keys_are_refused(
    s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_S3_KEYS", "folder")
    monkeypatch.setenv("LRF_S3_SECRET", "namespace/name")

    assert "both LRF_S3_SECRET and LRF_S3_KEYS" in failure(lambda: open_store("s3://releases"))


@pytest.fixture
def kubernetes_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """An API server of Kubernetes that knows secrets; gives what it answers, by path."""
    answers: dict[str, object] = {}

    def answer(asked: Asked) -> tuple[int, object]:
        found = answers.get(asked.path, 404)
        return (found, {}) if isinstance(found, int) else (200, found)

    with json_api(answer) as address:
        (tmp_path / "kubeconfig").write_text(kubeconfig(address, token=SECRET))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield answers


def secret(**values: str) -> dict[str, object]:
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "minio"}, "data": data}


def test_keys_may_come_from_a_kubernetes_secret(
    seaweed: Seaweed,
    no_s3_settings: None,
    monkeypatch: pytest.MonkeyPatch,
    kubernetes_api: dict[str, object],
) -> None:
    monkeypatch.setenv("LRF_S3_ENDPOINT", seaweed.endpoint)
    monkeypatch.setenv("LRF_S3_SECRET", "kubeflow/minio")
    path = "/api/v1/namespaces/kubeflow/secrets/minio"
    kubernetes_api[path] = secret(accesskey=seaweed.access_key, secretkey=seaweed.secret_key)
    open_store("s3://releases/keys").check()

    for answer, message in (
        (404, "there is none; create it"),
        (403, "give the service account the verb get"),
        (401, "does not know who asks"),
        (500, "HTTP status 500"),
        (secret(accesskey=SECRET), "has no secretkey"),
    ):
        kubernetes_api[path] = answer
        said = failure(lambda: open_store("s3://releases/keys"))
        assert "kubeflow/minio" in said
        assert message in said


def test_without_a_cluster_a_secret_cannot_be_read(
    no_s3_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("LRF_S3_SECRET", "kubeflow/minio")

    assert "set KUBECONFIG" in failure(lambda: open_store("s3://releases/keys"))


@pytest.mark.parametrize(
    ("addressing", "endpoint", "url"),
    [
        ("path", "https://s3.amazonaws.com", "//s3.us-east-1.amazonaws.com/releases/key"),
        ("auto", "https://s3.amazonaws.com", "//releases.s3.us-east-1.amazonaws.com/key"),
        ("auto", "http://minio:9000", "//minio:9000/releases/key"),
        ("virtual", "http://minio:9000", "//releases.minio:9000/key"),
    ],
)
def test_the_bucket_is_named_in_the_path_or_in_the_host(
    s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch, addressing: str, endpoint: str, url: str
) -> None:
    monkeypatch.setenv("LRF_S3_ADDRESSING", addressing)
    monkeypatch.setenv("LRF_S3_ENDPOINT", endpoint)
    client = settings.server_named_by(os.environ).client
    built = client._base_url.build(
        method="GET", region="us-east-1", bucket_name="releases", object_name="key"
    )

    assert built.geturl().endswith(url)
