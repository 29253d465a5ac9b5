"""What helm renders is what Kubernetes takes."""

from __future__ import annotations

import json
import re

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from rendered_chart import (
    CHART,
    NAMED,
    RefusedValuesError,
    named,
    of_kind,
    pods,
    render,
    render_text,
    run_helm,
    values,
    variables,
)

from lrf_core.spec import Spec, make_spec

NEWEST = list(dict.fromkeys(all_versions()))[-3:]
# Custom resources, which kubernetes-validate has no schemas of.
_OPERATORS = "monitoring.coreos.com/v1"


@pytest.mark.parametrize("name", ["defaults", *NAMED])
def test_lint_finds_nothing(name: str) -> None:
    assert "0 chart(s) failed" in run_helm("lint", "--strict", str(CHART), settings=values(name))


@pytest.mark.parametrize("version", NEWEST)
@pytest.mark.parametrize("name", ["defaults", *NAMED])
def test_every_object_is_valid_in_the_newest_versions_of_kubernetes(
    name: str, version: str
) -> None:
    objects = render(values(name), "lrf", "--kube-version", version)
    for each in objects:
        assert each["metadata"]["namespace"] == "team"
        if each["apiVersion"] != _OPERATORS:
            kubernetes_validate.validate(each, version, strict=True)
    keys = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(keys)) == len(keys)


def test_rendering_twice_gives_the_same() -> None:
    everything = values("everything")
    assert render_text(everything) == render_text(everything)


def test_everything_is_there_when_it_is_switched_on() -> None:
    kinds = {each["kind"] for each in render(values("everything"))}
    assert kinds == {
        *("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Deployment", "Service"),
        *("NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule", "Pod"),
    }


def test_nothing_is_cluster_wide() -> None:
    kinds = {each["kind"] for each in render(values("everything"))}
    assert not {kind for kind in kinds if kind.startswith(("Cluster", "Namespace", "Custom"))}


@pytest.mark.parametrize(
    ("release", "settings"),
    [
        ("a" * 53, {}),
        ("lrf-" + "a" * 49, {}),
        ("r" * 46 + "-lrf-x", {}),
        ("r", {"nameOverride": "n" * 50}),
        ("r", {"fullnameOverride": "f" * 50}),
    ],
)
def test_names_and_labels_fit_into_63_characters(release: str, settings: dict[str, str]) -> None:
    for each in render({**values("everything"), **settings}, release):
        name = each["metadata"]["name"]
        assert len(name) <= 63
        assert not name.endswith("-")
        assert all(len(value) <= 63 for value in each["metadata"]["labels"].values())


def test_a_release_that_looks_like_a_number_stays_text() -> None:
    for each in render(values("everything"), "123"):
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"


def test_the_monitor_finds_the_services_and_the_selectors_their_pods() -> None:
    objects = render(values("everything"))
    (monitor,) = of_kind(objects, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = of_kind(objects, "Service")
    found = {
        port["name"]
        for service in services
        if wanted <= service["metadata"]["labels"].items()
        for port in service["spec"]["ports"]
    }
    assert found == {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
    for service in services:
        selector = service["spec"]["selector"].items()
        matching = [pod for pod in pods(objects) if selector <= pod["metadata"]["labels"].items()]
        (pod,) = matching
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} == ports


def test_rules_and_dashboard_arrive_as_they_are() -> None:
    objects = render(values("everything"))
    (rule,) = of_kind(objects, "PrometheusRule")
    rules = (CHART / "files" / "rules.yaml").read_text()
    assert rule["spec"] == yaml.safe_load(rules)
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    dashboard = named(objects, "ConfigMap", "lrf-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    original = json.loads((CHART / "files" / "dashboard.json").read_text())
    assert json.loads(dashboard["data"]["lrf.json"]) == original


def test_other_settings_start_new_pods() -> None:
    def checksums(settings: dict[str, object]) -> dict[str, str]:
        deployment = named(render(settings), "Deployment", "lrf")
        marks: dict[str, str] = deployment["spec"]["template"]["metadata"]["annotations"]
        return marks

    minimal = values("minimal")
    assert checksums(minimal) == checksums({**minimal, "podDisruptionBudget": {"enabled": True}})
    assert checksums(minimal) != checksums({**minimal, "controller": {"poll": "5s"}})
    assert checksums(minimal) != checksums({**minimal, "steps": {"cluster": {"cache": False}}})


def test_the_spec_wins_over_the_defaults_for_steps() -> None:
    files = named(render(values("gpu")), "ConfigMap", "lrf-specs")["data"]
    clusters = {name: yaml.safe_load(text)["cluster"] for name, text in files.items()}
    assert clusters["default.yaml"]["stages"]["finetune"]["gpus"] == 1
    assert clusters["gentle.yaml"]["stages"]["finetune"]["gpus"] == 2
    assert clusters["gentle.yaml"]["stages"]["finetune"]["memory"] == "16Gi"
    assert clusters["gentle.yaml"]["image"].startswith("registry.example.com/ml/lrf@sha256:")


def test_a_variable_of_the_user_wins_over_the_charts() -> None:
    environment = variables(render(values("everything")))
    assert environment["LRF_S3_ADDRESSING"]["value"] == "virtual"
    assert environment["LRF_S3_ENDPOINT"]["value"] == "https://s3.example.com"


@pytest.mark.parametrize("name", ["defaults", *NAMED])
def test_specs_are_specs(name: str) -> None:
    if "cluster" not in Spec.model_fields:
        pytest.skip("the spec has no section `cluster`")
    files = named(render(values(name)), "ConfigMap", "lrf-specs")["data"]
    for text in files.values():
        spec = make_spec(yaml.safe_load(text), {"model": "s3://models/incoming/pets.keras"})
        assert spec.cluster.image


@pytest.mark.parametrize("name", ["defaults", *NAMED])
def test_settings_are_the_controllers(name: str) -> None:
    settings = pytest.importorskip("pipelines.controller.settings")
    text = named(render(values(name)), "ConfigMap", "lrf")["data"]["controller.yaml"]
    read = settings.ControllerSettings.model_validate(yaml.safe_load(text))
    assert read.lease.name == "lrf"
    assert read.address() == ("0.0.0.0", 8080)  # noqa: S104 - of the pod


def test_what_the_documentation_shows_renders() -> None:
    text = (CHART.parents[1] / "docs" / "install.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        render(yaml.safe_load(block))


def test_rights_without_an_account_are_refused() -> None:
    with pytest.raises(RefusedValuesError, match=r"set steps\.serviceAccount\.name"):
        render({"steps": {"trainJobs": True}})
