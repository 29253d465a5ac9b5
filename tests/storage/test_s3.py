"""The S3 store against a real server: settings, refusals, and what a user is told."""

from __future__ import annotations

import http.server
import io
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from seaweed import SECRET_KEY, Seaweed

from lrf_core.errors import StorageError
from lrf_core.storage import DamagedObjectError, ObjectInfo, Store, open_store, s3, settings

WRONG_SECRET = "a-wrong-secret-key-that-no-one-may-see"
TOKEN = "a-session-token-that-no-one-may-see"
TYPO_SECRET = "a-secret-key-with-a-line-end"


@pytest.fixture
def store(s3_settings: Seaweed) -> Store:
    return open_store(f"s3://{s3_settings.bucket}/test_s3")


@pytest.fixture
def page_server() -> Iterator[str]:
    """An HTTP server that is not S3; gives its endpoint."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(502)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<p>Bad gateway {self.headers['X-Amz-Security-Token']}".encode())

        do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def full_server() -> Iterator[str]:
    """A port whose queue is full: packets to it are dropped, as behind a firewall."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for connection in waiting:
            connection.setblocking(False)
            connection.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in waiting:
            connection.close()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_endpoint() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def failure(use: Callable[[], object]) -> str:
    """The one line that a StorageError says; no secret in it nor in its traceback."""
    with pytest.raises(StorageError) as caught:
        use()
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (SECRET_KEY, WRONG_SECRET, TOKEN, TYPO_SECRET):
        assert secret not in shown
    assert "\n" not in str(caught.value)
    return str(caught.value)


def uses(store: Store, folder: Path) -> list[Callable[[], object]]:
    source = folder / "source"
    source.write_bytes(b"content")
    return [
        lambda: store.get("key"),
        lambda: store.get_file("key", folder / "target"),
        lambda: store.put("key", b"content"),
        lambda: store.put_file("key", source),
        lambda: store.put_if_absent("key", b"content"),
        lambda: list(store.list()),
        lambda: store.delete("key"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_SECRET_ACCESS_KEY", WRONG_SECRET), ("AWS_ACCESS_KEY_ID", "nobody")],
)
def test_wrong_keys_are_one_clear_line(
    s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    store = open_store(f"s3://{s3_settings.bucket}/prefix")
    for use in (*uses(store, tmp_path), store.check, lambda: store.stat("key")):
        said = failure(use)
        assert s3_settings.endpoint in said
        assert f"bucket '{s3_settings.bucket}'" in said
        assert "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in said
    assert not (tmp_path / "target").exists()


def test_a_missing_bucket_is_one_clear_line(s3_settings: Seaweed, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/prefix")
    expected = f"S3 at {s3_settings.endpoint} has no bucket 'no-such-bucket'; create it"
    get, get_file, put, put_file, put_if_absent, list_keys, _ = uses(store, tmp_path)
    for use in (store.check, get, get_file, put, put_file, put_if_absent, list_keys):
        assert expected in failure(use)


def test_a_server_that_is_down_is_noticed_at_once(
    s3_settings: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    endpoint = closed_endpoint()
    monkeypatch.setenv("LRF_S3_ENDPOINT", endpoint)
    store = open_store("s3://releases")
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    impatient = open_store("s3://releases")
    started = time.monotonic()
    for use in (store.check, *uses(impatient, tmp_path), lambda: impatient.stat("key")):
        said = failure(use)
        assert f"S3 at {endpoint}, bucket 'releases': no connection can be made" in said
        assert "check LRF_S3_ENDPOINT and that the server runs" in said
    assert time.monotonic() - started < 10
    assert caplog.text == ""  # nothing but the one line


def test_a_server_that_drops_packets_is_given_up(
    full_server: str, s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.CONNECT_TIMEOUT_S <= 10
    monkeypatch.setattr(settings, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setenv("LRF_S3_ENDPOINT", full_server)

    assert "no connection within 0.2 s" in failure(open_store("s3://releases").check)


def test_a_server_that_does_not_answer_is_given_up(
    silent_server: str, s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    monkeypatch.setenv("LRF_S3_ENDPOINT", silent_server)

    assert "no answer within 0.2 s" in failure(open_store("s3://releases").check)


def test_a_host_that_does_not_exist_is_named(
    s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_S3_ENDPOINT", "http://s3.invalid:8333")
    said = failure(open_store("s3://releases").check)

    assert "S3 at http://s3.invalid:8333, bucket 'releases'" in said
    assert "the host name cannot be resolved" in said


def test_a_server_that_is_not_s3_is_named(
    page_server: str, s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_S3_ENDPOINT", page_server)
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    store = open_store("s3://releases")
    for use in (lambda: store.get("key"), lambda: store.put("key", b"x")):
        assert "not that of an S3 server; check that LRF_S3_ENDPOINT" in failure(use)


def test_tls_to_a_plain_port_is_named(
    s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_S3_ENDPOINT", s3_settings.endpoint.replace("http:", "https:"))

    assert "TLS fails; check LRF_S3_ENDPOINT" in failure(open_store("s3://releases").check)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LRF_S3_ENDPOINT", "127.0.0.1:8333", "write http://host:port"),
        ("LRF_S3_ENDPOINT", "http://host:port", "write http://host:port"),
        ("LRF_S3_ENDPOINT", "http://host/path", "write http://host:port"),
        ("LRF_S3_ENDPOINT", f"http://key:{WRONG_SECRET}@host", "write http://host:port"),
        ("AWS_SECRET_ACCESS_KEY", f"{TYPO_SECRET}\nx", "a blank, a line end"),
        ("AWS_ACCESS_KEY_ID", "a key", "a blank, a line end"),
        ("AWS_SECRET_ACCESS_KEY", "", "no S3 keys: set AWS_ACCESS_KEY_ID"),
        ("AWS_CA_BUNDLE", "no/such/file.pem", "AWS_CA_BUNDLE names no/such/file.pem"),
        ("SSL_CERT_FILE", "no/such/file.pem", "SSL_CERT_FILE names no/such/file.pem"),
    ],
)
def test_unusable_settings_are_refused_before_any_request(
    s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)

    assert message in failure(lambda: open_store("s3://releases"))


@pytest.mark.parametrize(
    "content",
    [
        f"[default]\naws_secret_access_key = %{WRONG_SECRET}\naws_access_key_id = key\n",
        f"{WRONG_SECRET}\n",
    ],
)
def test_a_malformed_credentials_file_is_named_and_not_quoted(
    no_s3_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    (tmp_path / "credentials").write_text(content)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    assert "AWS_SHARED_CREDENTIALS_FILE" in failure(lambda: open_store("s3://releases"))


def test_keys_may_come_from_a_mounted_file(
    seaweed: Seaweed, no_s3_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {seaweed.access_key}\n"
        f"aws_secret_access_key = {seaweed.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", closed_endpoint())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.endpoint + "/")

    open_store(f"minio://{seaweed.bucket}/prefix").check()


def test_without_an_endpoint_the_server_is_aws(
    s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LRF_S3_ENDPOINT")
    store = open_store("s3://releases")

    assert isinstance(store, s3.S3Store)
    assert store.endpoint == "https://s3.amazonaws.com"


def test_a_store_does_not_show_its_keys(store: Store) -> None:
    assert SECRET_KEY not in repr(store)


def test_content_that_does_not_match_its_recorded_digest_is_damaged(
    s3_settings: Seaweed, store: Store, tmp_path: Path
) -> None:
    s3_settings.client().put_object(
        s3_settings.bucket,
        "test_s3/rotten",
        io.BytesIO(b"rotten"),
        6,
        metadata={"sha256": "0" * 64},
    )

    assert "rotten is damaged" in failure(lambda: store.get("rotten"))
    with pytest.raises(DamagedObjectError):
        store.get_file("rotten", tmp_path / "target")
    assert list(tmp_path.glob("*target*")) == []


def test_objects_of_other_programs_have_no_known_digest(s3_settings: Seaweed, store: Store) -> None:
    s3_settings.client().put_object(s3_settings.bucket, "test_s3/other", io.BytesIO(b"abc"), 3)

    assert store.get("other") == b"abc"
    assert store.stat("other") == ObjectInfo(size=3, sha256=None)


def test_the_prefix_keeps_stores_apart(s3_settings: Seaweed) -> None:
    one = open_store(f"s3://{s3_settings.bucket}/team/one")
    other = open_store(f"s3://{s3_settings.bucket}/team/on")
    one.put("key", b"x")

    assert list(one.list()) == ["key"]
    assert list(other.list()) == []
    assert one.url("key") == f"s3://{s3_settings.bucket}/team/one/key"
