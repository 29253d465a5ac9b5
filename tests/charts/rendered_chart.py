"""The chart as helm renders it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "lrf"
VALUES = Path(__file__).parent / "values"
NAMED = ("minimal", "gpu", "everything")


class RefusedValuesError(Exception):
    """helm refuses the values; with what it says."""


class _Strict(yaml.CSafeLoader):
    """Refuses a key that stands twice in a mapping, of which PyYAML would drop one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        assert len(mapping) == len(node.value), [key.value for key, _ in node.value]
        return mapping


def values(name: str) -> dict[str, Any]:
    """What one of the files in values/ sets; "defaults" is none of them and sets nothing."""
    if name == "defaults":
        return {}
    loaded: dict[str, Any] = yaml.safe_load((VALUES / f"{name}.yaml").read_text())
    return loaded


@functools.cache
def helm() -> str:
    """Where helm is. Skips if there is none."""
    beside = Path(sys.executable).with_name("helm")
    found = str(beside) if beside.exists() else shutil.which("helm")
    if found is None:
        pytest.skip("needs helm: `make .venv/.tools` puts it beside Python")
    return found


def run_helm(*arguments: str, settings: dict[str, Any] | None = None) -> str:
    """What helm prints.

    Args:
        settings: values, given as `--values -`.

    Raises:
        RefusedValuesError: it ends with an error.
    """
    # No repositories and plugins of whoever runs the tests; helm writes nothing for these commands.
    nowhere = str(VALUES / "no-home")
    homes = dict.fromkeys(("HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"), nowhere)
    ended = subprocess.run(
        [helm(), *arguments, *(["--values", "-"] if settings is not None else [])],
        input=yaml.safe_dump(settings or {}),
        env={**os.environ, **homes},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if ended.returncode:
        raise RefusedValuesError(ended.stderr)
    return ended.stdout


def render_text(settings: dict[str, Any], release: str = "lrf", *flags: str) -> str:
    """Every object as YAML, `helm test` included."""
    return run_helm(
        "template", release, str(CHART), "--namespace", "team", *flags, settings=settings
    )


def render(settings: dict[str, Any], release: str = "lrf", *flags: str) -> list[dict[str, Any]]:
    """Every object, `helm test` included. Rendered once; to be read only."""
    return _rendered(json.dumps(settings), release, flags)


@functools.cache
def _rendered(settings: str, release: str, flags: tuple[str, ...]) -> list[dict[str, Any]]:
    text = render_text(json.loads(settings), release, *flags)
    return [loaded for loaded in yaml.load_all(text, _Strict) if loaded]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] == kind]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each pod, or template of pods, with `metadata` and `spec`."""
    yield from of_kind(objects, "Pod")
    for deployment in of_kind(objects, "Deployment"):
        yield deployment["spec"]["template"]


def variables(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The environment of the controller, by name."""
    pod = named(objects, "Deployment", "lrf")["spec"]["template"]["spec"]
    listed = pod["containers"][0]["env"]
    by_name = {variable["name"]: variable for variable in listed}
    assert len(by_name) == len(listed), "a variable is set twice"
    return by_name
