"""Pods are restricted, rights are the least there are, and no secret is in what helm writes."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rendered_chart import CHART, NAMED, named, of_kind, pods, render, values, variables

INSTALL = CHART.parents[1] / "docs" / "install.md"
# The volumes of the pod security standard "restricted".
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}


@pytest.mark.parametrize("name", ["defaults", *NAMED])
def test_every_pod_is_restricted(name: str) -> None:
    for pod in pods(render(values(name))):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= _VOLUMES
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_only_the_controller_gets_a_token() -> None:
    objects = render(values("everything"))
    with_token = [pod for pod in pods(objects) if pod["spec"]["automountServiceAccountToken"]]
    (pod,) = with_token
    assert pod["spec"]["serviceAccountName"] == "lrf"
    assert named(objects, "ServiceAccount", "lrf")["automountServiceAccountToken"] is False


def test_secrets_are_references() -> None:
    objects = render(values("everything"))
    assert not of_kind(objects, "Secret")
    environment = variables(objects)
    for name in ("LRF_KFP_TOKEN", "KUBEFLOW_REGISTRY_TOKEN", "MLFLOW_TRACKING_TOKEN"):
        assert set(environment[name]) == {"name", "valueFrom"}
        assert environment[name]["valueFrom"]["secretKeyRef"]["name"] == "lrf-tokens"
    volumes = named(objects, "Deployment", "lrf")["spec"]["template"]["spec"]["volumes"]
    (keys,) = (volume["secret"] for volume in volumes if volume["name"] == "keys")
    assert keys == {"secretName": "object-storage", "defaultMode": 0o440}


def _rights(objects: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """(account, group/resource, verbs, names) of every rule, as the documentation lists them."""
    found = set()
    bound = {b["roleRef"]["name"]: b["subjects"] for b in of_kind(objects, "RoleBinding")}
    for role in of_kind(objects, "Role"):
        (subject,) = bound[role["metadata"]["name"]]
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    what = f"{resource}.{group}".strip(".")
                    names = ", ".join(rule.get("resourceNames", []))
                    found.add((subject["name"], what, ", ".join(rule["verbs"]), names))
    return found


def test_every_right_is_documented_and_no_other() -> None:
    section = INSTALL.read_text().partition("## What it may do")[2].partition("\n## ")[0]
    rows = [
        tuple(cell.strip().replace("`", "") for cell in line.strip("|").split("|"))
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    assert all(why for *_, why in rows)
    assert {row[:4] for row in rows} == _rights(render(values("everything")))


def test_without_switches_the_controller_may_lease_and_the_steps_nothing() -> None:
    assert _rights(render(values("minimal"))) == {
        ("lrf", "leases.coordination.k8s.io", "create", ""),
        ("lrf", "leases.coordination.k8s.io", "get, update", "lrf"),
    }


def test_rights_go_to_the_account_that_is_named() -> None:
    steps = {"serviceAccount": {"name": "default-editor"}, "trainJobs": True}
    assert {right for right in _rights(render({"steps": steps})) if right[0] != "lrf"} == {
        ("default-editor", "trainjobs.trainer.kubeflow.org", "create, get, delete", ""),
        ("default-editor", "pods", "list", ""),
    }


@pytest.mark.parametrize("name", ["defaults", "everything"])
def test_every_pod_is_denied_what_no_policy_allows(name: str) -> None:
    objects = render(values(name))
    for pod in pods(objects):
        labels = pod["metadata"]["labels"].items()
        (policy,) = (
            policy["spec"]
            for policy in of_kind(objects, "NetworkPolicy")
            if policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        )
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy.get("ingress", []):
            assert rule["from"]
            assert rule["ports"]
        for rule in policy.get("egress", []):
            assert rule["to"]
            assert rule["ports"]


def test_the_controller_is_scraped_and_reaches_what_it_is_told() -> None:
    policy = named(render(values("everything")), "NetworkPolicy", "lrf")["spec"]
    (ingress,) = policy["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": "http"}]
    namespaces = [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in ingress["from"]
        if "namespaceSelector" in peer
    ]
    assert namespaces == ["monitoring", "observability"]
    reached = [(rule["to"], [port["port"] for port in rule["ports"]]) for rule in policy["egress"]]
    assert ([{"ipBlock": {"cidr": "10.0.0.1/32"}}], [6443]) in reached
    storage = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}},
        "podSelector": {"matchLabels": {"app": "seaweedfs"}},
    }
    assert ([storage], [8333]) in reached


@contextmanager
def _controller(status: int, metrics: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 200)
            self.end_headers()
            self.wfile.write(metrics.encode() if self.path == "/metrics" else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "metrics", "said"),
    [
        (200, "# HELP\nlrf_controller_leader 1.0\n", ""),
        (503, "# HELP\nlrf_controller_leader 1.0\n", "is not ready: HTTP Error 503"),
        (200, "# HELP\npython_info 1.0\n", "holds no lrf_controller_"),
    ],
)
def test_the_test_of_the_release_asks_the_controller(status: int, metrics: str, said: str) -> None:
    pod = named(render(values("defaults")), "Pod", "lrf-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    python, *arguments, address = pod["spec"]["containers"][0]["command"]
    assert (python, address) == ("python", "http://lrf:8080")
    with _controller(status, metrics) as url:
        asked = [sys.executable, *arguments, url]
        ended = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert (ended.returncode == 0) == (not said)
    assert re.search(re.escape(said), ended.stderr)
