"""What an InferenceService says of itself.

References:
    pkg/apis/serving/v1beta1/inference_service_status.go and
    pkg/controller/v1beta1/inferenceservice/reconcilers/knative/ksvc_reconciler.go in
    github.com/kserve/kserve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lrf_core.redaction import one_line

Mode = Literal["serverless", "raw", "unknown"]

# KServe 0.16 renamed both; ModelMesh and others are none of these.
_MODES: Mapping[str, Mode] = {
    "Serverless": "serverless",
    "Knative": "serverless",
    "RawDeployment": "raw",
    "Standard": "raw",
}
_MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
_FAILED = ("BlockedByFailedLoad", "InvalidSpec")


@dataclass(frozen=True)
class Target:
    """One share of the traffic: its percent, its revision, and its own address, if it has one."""

    revision: str
    percent: int
    latest: bool
    url: str | None


@dataclass(frozen=True)
class ServiceState:
    """An InferenceService, as far as a promotion looks at it.

    Attributes:
        generation: changes with every change of the spec, by whoever.
        observed: `status.observedGeneration`. KServe copies that of the Knative Service or of the
            Deployment below, so it is not comparable with `generation`; but it changes.
        created, ready_revision, rolled_out: names of revisions (serverless).
        url: where the model itself answers.
        failure: why the model could not be loaded, as KServe says it; "" where it does not.
        waiting_for: conditions that are not true, with their reasons.
    """

    generation: int
    resource_version: str
    annotations: Mapping[str, str]
    mode: Mode
    storage_uri: str | None
    percent: int | None
    ready: bool
    observed: int | None
    created: str
    ready_revision: str
    rolled_out: str
    traffic: tuple[Target, ...]
    url: str | None
    failure: str
    waiting_for: str

    def latest(self) -> Target | None:
        """The share of the newest revision that is ready."""
        return next((target for target in self.traffic if target.latest), None)


def state_of(service: Mapping[str, Any]) -> ServiceState:
    """Read an InferenceService as the API gives it."""
    metadata, status = service["metadata"], service.get("status") or {}
    predictor = service["spec"].get("predictor") or {}
    component = (status.get("components") or {}).get("predictor") or {}
    conditions = status.get("conditions") or []
    return ServiceState(
        generation=int(metadata.get("generation", 0)),
        resource_version=str(metadata.get("resourceVersion", "")),
        annotations=dict(metadata.get("annotations") or {}),
        mode=_mode(metadata, status, component),
        storage_uri=(predictor.get("model") or {}).get("storageUri"),
        percent=predictor.get("canaryTrafficPercent"),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        observed=status.get("observedGeneration"),
        created=component.get("latestCreatedRevision", ""),
        ready_revision=component.get("latestReadyRevision", ""),
        rolled_out=component.get("latestRolledoutRevision", ""),
        traffic=tuple(_target(target) for target in component.get("traffic") or []),
        # A transformer takes other inputs than the model.
        url=component.get("url") if service["spec"].get("transformer") else status.get("url"),
        failure=_failure(status.get("modelStatus") or {}),
        waiting_for="; ".join(_said(c) for c in conditions if c["status"] != "True"),
    )


def _mode(
    metadata: Mapping[str, Any], status: Mapping[str, Any], component: Mapping[str, Any]
) -> Mode:
    named = status.get("deploymentMode") or (metadata.get("annotations") or {}).get(
        _MODE_ANNOTATION
    )
    if named:
        return _MODES.get(named, "unknown")
    # KServe before 0.14 does not name it, but only Knative has revisions.
    return "serverless" if component.get("latestCreatedRevision") else "unknown"


def _target(traffic: Mapping[str, Any]) -> Target:
    return Target(
        revision=traffic.get("revisionName", ""),
        percent=traffic.get("percent") or 0,
        latest=bool(traffic.get("latestRevision")),
        url=traffic.get("url"),
    )


def _failure(model: Mapping[str, Any]) -> str:
    states, info = model.get("states") or {}, model.get("lastFailureInfo") or {}
    transition = model.get("transitionStatus", "")
    if transition not in _FAILED and states.get("targetModelState") != "FailedToLoad":
        return ""
    about = [info.get("reason"), info.get("message"), info.get("location"), info.get("time")]
    said = " ".join(" ".join(str(part) for part in about if part).split())
    failed = transition or "FailedToLoad"
    return one_line(f"{failed}: {said}", 400) if said else failed


def _said(condition: Mapping[str, Any]) -> str:
    reason = " ".join(
        str(part) for part in (condition.get("reason"), condition.get("message")) if part
    )
    return one_line(f"{condition['type']} {condition['status']} {reason}", 200)
