"""No secret is printed, logged, written or sent, in whatever form a library has put it."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lrf_core import redaction
from lrf_core.artifacts import Analysis
from lrf_core.errors import CredentialError, LrfError, SpecError, StorageError
from lrf_core.kubernetes_api import _redact
from lrf_core.redaction import one_line, redacted, register, register_pair, shown
from lrf_core.releases.signing import PASSWORD_SETTING, _password
from lrf_core.report.templates import templates
from lrf_core.secrets.credentials import password_in, token, token_from, token_in
from lrf_core.serving import answers, prometheus
from lrf_core.spec import make_spec
from lrf_core.storage.keys import provider_of_keys
from lrf_core.telemetry import pushgateway
from lrf_core.telemetry.metrics import Metrics

SECRET = 'pa+ss/wo"rd\\é-of=mine'
TOKEN = "tok.en+of/mine=="

# What libraries, URLs and files make of a secret; see RFC 7617 for the pair.
FORMS: dict[str, Callable[[str], str]] = {
    "raw": lambda value: value,
    "stripped": lambda value: value.strip(),
    "repr": repr,
    "repr of bytes": lambda value: repr(value.encode()),
    "url": lambda value: quote(value, safe=""),
    "url with slashes": quote,
    "url in lower case": lambda value: quote(value, safe="").replace("%2F", "%2f"),
    "form": quote_plus,
    "json": json.dumps,
    "json of unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for urls": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "a pair": lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    "another pair": lambda value: base64.b64encode(f"me:{value.strip()}".encode()).decode(),
    "a header": lambda value: f"{{'Authorization': 'Bearer {value}'}}",
    "cut off": lambda value: value[:12],
}


def _parts(secret: str) -> list[str]:
    """What must not be left of a secret anywhere."""
    return [secret[:8], secret[-6:], quote(secret, safe="")[-8:]]


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_registered", set())


def _read_s3(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / "accesskey").write_text("mine")
    (folder / "secretkey").write_text(f"{TOKEN}\n")
    provider_of_keys({"LRF_S3_KEYS": str(folder)})
    return TOKEN


def _read_s3_credentials_file(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / "aws").write_text(
        f"[default]\naws_access_key_id = a\naws_secret_access_key = {TOKEN}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "aws"))
    provider_of_keys(os.environ)
    return TOKEN


def _read_mlflow(folder: Path, patch: pytest.MonkeyPatch) -> str:
    from lrf_core.registry.mlflow_client import Connection

    patch.setenv("MLFLOW_TRACKING_TOKEN", f"{TOKEN}\n")
    Connection.open("http://localhost:1")
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == TOKEN
    return TOKEN


def _read_mlflow_credentials_file(folder: Path, patch: pytest.MonkeyPatch) -> str:
    from lrf_core.registry.mlflow_client import Connection

    (folder / ".mlflow").mkdir()
    (folder / ".mlflow" / "credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = {TOKEN}\n"
    )
    patch.setenv("HOME", str(folder))
    Connection.open("http://localhost:1")
    return TOKEN


def _read_kubeflow_registry(folder: Path, patch: pytest.MonkeyPatch) -> str:
    from lrf_core.registry.kubeflow_client import Connection

    (folder / "token").write_text(f"{TOKEN}\r\n")
    patch.setenv("KUBEFLOW_REGISTRY_TOKEN_FILE", str(folder / "token"))
    assert Connection.from_environment("http://localhost:1").token == TOKEN
    return TOKEN


def _read_kubernetes(folder: Path, patch: pytest.MonkeyPatch) -> str:
    import kubernetes.client

    used = kubernetes.client.Configuration()

    def renew(configuration: kubernetes.client.Configuration) -> None:
        configuration.api_key["authorization"] = f"Bearer {TOKEN}"

    used.refresh_api_key_hook = renew
    _redact(used)
    return TOKEN


def _read_pushgateway(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setenv(pushgateway.GATEWAY_VARIABLE, "http://localhost:1")
    patch.setenv(pushgateway.USER_VARIABLE, "me")
    patch.setenv(pushgateway.PASSWORD_VARIABLE, f"{SECRET}\n")
    assert pushgateway._gateway() is not None
    return SECRET


def _read_signing(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setenv(PASSWORD_SETTING, f"{SECRET}\n")
    assert _password() == SECRET.encode()
    return SECRET


def _read_variable(variable: str) -> Callable[[Path, pytest.MonkeyPatch], str]:
    def read(folder: Path, patch: pytest.MonkeyPatch) -> str:
        patch.setenv(variable, f"{TOKEN}\n")
        assert token_in(variable) == TOKEN
        return TOKEN

    return read


SOURCES = {
    "S3, a mounted folder": _read_s3,
    "S3, the file of AWS' tools": _read_s3_credentials_file,
    "MLflow, a token": _read_mlflow,
    "MLflow, its credentials file": _read_mlflow_credentials_file,
    "Kubeflow Model Registry": _read_kubeflow_registry,
    "Kubernetes": _read_kubernetes,
    "pushgateway": _read_pushgateway,
    "signing key": _read_signing,
    "Prometheus": _read_variable(prometheus.TOKEN_VARIABLE),
    "inference": _read_variable(answers.TOKEN_VARIABLE),
    "Kubeflow Pipelines": _read_variable("LRF_KFP_TOKEN"),
}


def _logged(text: str, caplog: pytest.LogCaptureFixture) -> str:
    logger = logging.getLogger("lrf")
    caplog.clear()
    with caplog.at_level("DEBUG", "lrf"):
        try:
            raise ValueError(text)
        except ValueError:
            logger.debug("asked for %s", text, exc_info=True)
    return caplog.text


def _exposed(text: str) -> str:
    metrics = Metrics()
    metrics.releases.labels(text).inc()
    return str([metric.samples for metric in metrics.registry.collect()])


@pytest.mark.parametrize("source", SOURCES)
def test_a_secret_is_shown_nowhere_in_no_form(
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = SOURCES[source](tmp_path, monkeypatch)
    template = templates().from_string("<p title='{{ said }}'>{{ said }}</p>")
    for form, make in FORMS.items():
        for value in (secret, f"{secret}\n"):
            said = f"asked with {make(value)} at noon"
            seen = {
                "error": str(LrfError(said)),
                "printed": shown(said),
                "line": one_line(said),
                "log": _logged(said, caplog),
                "report": template.render(said=said),
                "metrics": _exposed(said),
            }
            for sink, text in seen.items():
                left = [part for part in _parts(secret) if part in text]
                encoded = make(value)
                assert not left, f"{form} in {sink}: {text}"
                assert len(encoded) < 12 or encoded not in text, f"{form} in {sink}: {text}"
                assert "asked" in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:sesame@host/x", "https://***@host/x"),
        ("s3://AKIA:ses/ame@bucket/x", "s3://***@bucket/x"),
        ("https://sesame@host", "https://***@host"),
        ("https://h/x?X-Amz-Signature=sesame&a=1", "https://h/x?X-Amz-Signature=***&a=1"),
        ("https://h/x?X-Amz-Credential=sesame%2F1", "https://h/x?X-Amz-Credential=***"),
        ("https://h/x?a=1&X-Amz-Security-Token=sesame", "https://h/x?a=1&X-Amz-Security-Token=***"),
        ("https://h/x?AWSAccessKeyId=sesame&Signature=sesame", None),
        ("https://h/x?X-Goog-Signature=sesame&X-Goog-Credential=sesame", None),
        ("https://h/x?sv=2024&sig=sesame%3D&se=2", "https://h/x?sv=2024&sig=***&se=2"),
        ("https://h/x?token=sesame", "https://h/x?token=***"),
        ("https%3A%2F%2Fh%3FX-Amz-Signature%3Dsesame%26a", None),
        ("{'Authorization': 'Bearer sesame', 'Accept': 'x'}", None),
        ('{"authorization": "Basic sesame"}', None),
        ("Authorization: AWS4-HMAC-SHA256 Credential=sesame, Signature=sesame", None),
        ("-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----", "***"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZXNhbWUifQ.sesame", "token ***"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, left: str | None) -> None:
    assert "sesame" not in redacted(text)
    assert left is None or redacted(text) == left
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        "kubeflow+https://registry:8080/api is no registry",
        "the signature does not fit its files",
        "basic authentication is asked for by http://host:9091/path",
        "s3://bucket/model.keras@2 and a@b",
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@given(st.text(), st.text(), st.text(st.characters(codec="utf-8"), min_size=8, max_size=300))
def test_a_reason_of_others_is_one_short_line_without_a_secret(
    before: str, after: str, secret: str
) -> None:
    assume(len(secret.strip()) >= 8 and secret.strip() not in f"{before}{after}***")
    redaction._registered.clear()
    register(secret)
    text = one_line(f"{before} {secret} {after}")
    assert secret.strip() not in text
    assert len(text.splitlines()) <= 1
    assert text.isprintable()


def test_a_secret_of_three_characters_is_refused_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LRF_KFP_TOKEN", "abc\n")
    (tmp_path / "token").write_text("abc")
    for read in (
        lambda: token_in("LRF_KFP_TOKEN"),
        lambda: password_in("LRF_KFP_TOKEN"),
        lambda: token("abc", "it"),
        lambda: token_from(tmp_path / "token", "it"),
    ):
        with pytest.raises(CredentialError, match="fewer than 4 characters") as caught:
            read()
        assert "abc" not in str(caught.value)


def test_a_pair_of_user_and_short_password_is_hidden() -> None:
    register_pair("administrator", "abcd")
    pair = base64.b64encode(b"administrator:abcd").decode()
    assert pair not in redacted(f"sent {pair}")


@pytest.mark.parametrize("variable", ["LRF_S3_KEYS", "LRF_SIGNING_KEY", "LRF_S3_SECRET"])
def test_a_secret_in_place_of_where_it_is_is_not_shown(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    monkeypatch.setenv(variable, key)
    assert key not in str(StorageError(f"{variable} names {key}, which is no folder"))
    if variable == "LRF_S3_KEYS":
        with pytest.raises(StorageError, match=r"names \*\*\*, which is no folder"):
            provider_of_keys(os.environ)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"data": "https://h/data.npz?X-Amz-Signature=sesame"}, "data"),
        ({"publish": {"to": "s3://key:sesame@bucket"}}, "publish.to"),
        ({"publish": {"registries": ["mlflow+https://me:sesame@host"]}}, "publish.registries"),
    ],
)
def test_a_spec_with_a_secret_is_refused_since_artifacts_hold_it(
    settings: dict[str, object], name: str
) -> None:
    with pytest.raises(SpecError, match=f"'{name}' holds a password") as caught:
        make_spec({"model": "a", "data": "b"}, settings)
    assert "sesame" not in str(caught.value)


def test_an_artifact_that_does_not_parse_does_not_repeat_a_secret(tmp_path: Path) -> None:
    register(TOKEN)
    file = tmp_path / Analysis.file_name
    file.write_text(json.dumps({TOKEN: 1, "lineage": TOKEN}))
    with pytest.raises(LrfError) as caught:
        Analysis.load(file)
    assert TOKEN not in str(caught.value)


_COMMAND = """
import logging, sys, threading, warnings
from lrf_core.commands import app as cli
from lrf_core.console import terminal
import typer
app = typer.Typer()
@app.command()
def fail(how: str):
    secret = open(0).read()
    if how == "thread":
        thread = threading.Thread(target=lambda: 1 / len([]) if not secret else int(secret))
        thread.start(); thread.join(); raise SystemExit(1)
    if how == "warning":
        warnings.warn(secret); raise SystemExit(1)
    if how == "library":
        logging.getLogger("urllib3").warning("header %r", secret); raise SystemExit(1)
    if how == "hook":
        sys.excepthook(ValueError, ValueError(secret), None); raise SystemExit(1)
    raise ValueError(f"Invalid header value {secret!r}")
@app.command()
def other(): pass
cli.run_command_line(app)
"""


@pytest.mark.parametrize("how", ["error", "thread", "warning", "library", "hook"])
def test_a_command_prints_no_secret_however_it_fails(how: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _COMMAND, "fail", how],
        input=f"{TOKEN}\n",
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_TOKEN": f"{TOKEN}\n", "LRF_LOG_LEVEL": "debug"},
        check=False,
    )
    assert ended.returncode == 1
    assert "***" in ended.stderr
    assert TOKEN not in ended.stderr + ended.stdout
