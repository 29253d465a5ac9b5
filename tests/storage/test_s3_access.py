"""S3 as platforms run it: over TLS with a CA of their own, and for users who may only read."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed, SeaweedProcess, started

from lrf_core.errors import StorageError
from lrf_core.storage import open_store

READER_SECRET = "the-secret-key-of-a-reader"
CONTENT = bytes(range(256)) * 100


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SeaweedProcess, Path]]:
    """A server with TLS and two users, `lrf-test` and `reader`, and the file of its CA."""
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost", "releases.localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(str(folder / "cert.pem"), append=True)
    users = [user("admin", ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "Write", "List"])]
    users += [user("reader", "reader", READER_SECRET, ["Read", "List"])]
    (folder / "users.json").write_text(json.dumps({"identities": users}))
    process = started(
        folder,
        f"-s3.config={folder / 'users.json'}",
        f"-s3.cert.file={folder / 'cert.pem'}",
        f"-s3.key.file={folder / 'key.pem'}",
        "-s3.domainName=localhost",
        authority=folder / "ca.pem",
    )
    yield process, folder / "ca.pem"
    process.kill()


def user(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, Any]:
    keys = {"accessKey": access_key, "secretKey": secret_key}
    return {"name": name, "credentials": [keys], "actions": actions}


@pytest.fixture
def tls_settings(
    secured: tuple[SeaweedProcess, Path], no_s3_settings: None, monkeypatch: pytest.MonkeyPatch
) -> Seaweed:
    process, authority = secured
    for name, value in process.server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
    return process.server


def test_everything_works_over_tls(tls_settings: Seaweed, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(CONTENT * 800)
    store = open_store(f"s3://{BUCKET}/tls")
    store.check()
    store.put("small", CONTENT)
    store.put_file("large", large)
    store.copy("large", "copied")
    store.get_file("copied", tmp_path / "back")
    stored = store.read("small")
    assert stored is not None

    assert store.replace("small", b"new", stored.tag) is True
    assert store.put_if_absent("small", b"newer") is False
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert sorted(store.list()) == ["copied", "large", "small"]


def test_a_certificate_of_an_unknown_ca_is_refused_at_once(
    tls_settings: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "other.pem"))

    with pytest.raises(StorageError, match=r"TLS fails; check .* the CA in AWS_CA_BUNDLE"):
        open_store(f"s3://{BUCKET}/tls").get("key")


def test_a_ca_file_that_holds_no_certificate_is_named(
    tls_settings: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    with pytest.raises(StorageError, match=r"AWS_CA_BUNDLE names .*no certificate"):
        open_store(f"s3://{BUCKET}/tls").get("key")


def test_the_bucket_may_be_in_the_host_name(
    tls_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = socket.getaddrinfo
    monkeypatch.setattr(  # no name server here knows *.localhost
        socket, "getaddrinfo", lambda host, *more, **known: address("127.0.0.1", *more, **known)
    )
    endpoint = tls_settings.endpoint.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("LRF_S3_ENDPOINT", endpoint)
    open_store(f"s3://{BUCKET}/virtual").put("key", CONTENT)
    monkeypatch.setenv("LRF_S3_ADDRESSING", "virtual")

    assert open_store(f"s3://{BUCKET}/virtual").get("key") == CONTENT


def test_who_may_only_read_gets_one_clear_line_and_writes_nothing(
    tls_settings: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owner = open_store(f"s3://{BUCKET}/read-only")
    owner.put("there", CONTENT)
    stored = owner.read("there")
    assert stored is not None
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "large").write_bytes(CONTENT * 800)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    reader = open_store(f"s3://{BUCKET}/read-only")

    assert reader.get("there") == CONTENT
    for write in (
        lambda: reader.put("new", b"x"),
        lambda: reader.put_file("new", tmp_path / "small"),
        lambda: reader.put_file("new", tmp_path / "large"),
        lambda: reader.put_if_absent("new", b"x"),
        lambda: reader.replace("there", b"x", stored.tag),
        lambda: reader.copy("there", "new"),
        lambda: reader.delete("there"),
    ):
        with pytest.raises(StorageError, match=r"do not allow this .AccessDenied") as caught:
            write()
        assert "\n" not in str(caught.value)
        assert READER_SECRET not in str(caught.value)
    assert list(owner.list()) == ["there"]
    assert owner.get("there") == CONTENT
