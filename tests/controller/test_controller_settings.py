"""The controller's file and the named specs: what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrf_core.errors import LrfError, SpecError
from pipelines.controller.process import check_places
from pipelines.controller.settings import load_settings, load_specs

SPEC = {"data": "d.npz", "publish": {"to": "file:///srv/releases"}}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "small.yaml").write_text(yaml.safe_dump(SPEC))
    return {
        "specs": str(tmp_path / "specs"),
        "state": "file:///srv/state",
        "sources": [{"uri": "file:///srv/incoming", "spec": "small"}],
    }


def written(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "controller.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_a_whole_file(given: dict[str, Any], tmp_path: Path) -> None:
    given |= {
        "poll": "500ms",
        "backoff": "1.5m",
        "parallel": 3,
        "attempts": 5,
        "pipelines": {"host": "http://ml-pipeline.kubeflow:8888", "namespace": "team"},
        "lease": {"name": "lrf-controller", "duration": "15s"},
        "listen": "[::]:8080",
    }
    settings = load_settings(written(tmp_path, given))
    assert (settings.poll, settings.backoff) == (0.5, 90.0)
    assert settings.lease is not None
    assert settings.lease.duration == 15.0
    assert settings.address() == ("::", 8080)
    specs = load_specs(settings.specs)
    assert specs == {"small": SPEC}
    check_places(settings, specs)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pol": "30s"}, "unknown setting 'pol' (did you mean 'poll'?)"),
        ({"poll": "soon"}, "setting 'poll': .* such as 30s, 10m or 1h"),
        ({"poll": "0s"}, "setting 'poll'"),
        ({"parallel": 0}, "setting 'parallel'"),
        ({"state": None}, "setting 'state'"),
        ({"state": "ftp://host"}, "unknown kind"),
        ({"sources": []}, "setting 'sources'"),
        ({"sources": [{"uri": "file:///a", "spce": "x"}]}, "did you mean 'spec'"),
        ({"sources": [{"uri": "file:///a"}, {"uri": "file:///a"}]}, "listed twice"),
        ({"lease": {"duration": "x"}}, "setting 'lease.duration'"),
        ({"listen": "8080"}, "setting 'listen'"),
        ({"state": "s3://key:hidden@bucket/x"}, "'state' holds a user name or a password"),
        ({"sources": [{"uri": "mlflow+http://me:hidden@mlflow"}]}, "'sources.0.uri' holds"),
        ({"pipelines": {"host": "http://me:hidden@kfp"}}, "'pipelines.host' holds"),
    ],
)
def test_a_setting_that_cannot_be_used(
    change: dict[str, Any], told: str, given: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(LrfError) as caught:
        load_settings(written(tmp_path, {**given, **change}))
    assert re.search(told, str(caught.value)) or told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("content", "told"), [("a: [", "not valid YAML"), ("a", "a mapping")])
def test_a_file_that_is_no_mapping(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=told):
        load_settings(written(tmp_path, content))
    with pytest.raises(SpecError, match="cannot read the settings"):
        load_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({**SPEC, "model": "m.keras"}, "sets model, which the controller sets"),
        ({**SPEC, "out": "out"}, "sets out"),
        ({"data": "d.npz"}, "publish.to is not set"),
        ({**SPEC, "goall": {}}, "did you mean 'goal'"),
    ],
)
def test_a_spec_that_cannot_be_used_for_every_model(
    spec: dict[str, Any], told: str, given: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "specs" / "other.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(SpecError, match=told) as caught:
        load_specs(Path(given["specs"]))
    assert "other.yaml" in str(caught.value)


def test_a_folder_without_specs(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no specs in"):
        load_specs(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"state": "file:///srv/incoming/state"}, "state .* lies below the source"),
        ({"sources": [{"uri": "file:///srv", "spec": "small"}]}, "lies below the source"),
        ({"sources": [{"uri": "file:///in", "spec": "smal"}]}, "there is no spec 'smal'"),
        (
            {"sources": [{"uri": "mlflow+http://mlflow:5000", "spec": "small"}]},
            "each version names its spec in",
        ),
    ],
)
def test_what_is_written_must_not_ask(
    change: dict[str, Any], told: str, given: dict[str, Any], tmp_path: Path
) -> None:
    settings = load_settings(written(tmp_path, {**given, **change}))
    with pytest.raises(SpecError, match=told):
        check_places(settings, {"small": SPEC})
