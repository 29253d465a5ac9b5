"""A Kubernetes API with one resource, InferenceService, and a KServe controller behind it.

It takes merge patches as the real one does (resourceVersion, dry runs, defaulting), validates every
object against KServe's own schema, and moves revisions and traffic as createKnativeService in
pkg/controller/v1beta1/inferenceservice/reconcilers/knative/ksvc_reconciler.go and PropagateStatus
in pkg/apis/serving/v1beta1/inference_service_status.go of github.com/kserve/kserve do. The
controller acts once before each read, so that tests need no clock.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from json_api import Asked, json_api, kubeconfig
from kserve_schema import problems

NAMESPACE, NAME = "team", "digits"
SERVICE = f"{NAMESPACE}/{NAME}"
DOMAIN = f"{NAMESPACE}.example.com"
_PREFIX = "/apis/serving.kserve.io/v1beta1/namespaces/"
_VERBS = {"GET": "get", "PATCH": "patch", "PUT": "update", "POST": "create", "DELETE": "delete"}
# KServe does not pass these on to the revisions.
_NOT_PASSED_ON = ("kubectl.kubernetes.io/last-applied-configuration",)


@dataclass
class Revision:
    name: str
    template: str
    uri: str
    age: int = 0
    ready: bool = False


@dataclass
class KServe:
    """The API server and the controller.

    Attributes:
        service: the InferenceService; None: there is none.
        loads: "ok", "fail" or "never", by the storageUri.
        reads_until_ready: how often the service is read until a revision is ready.
        requests: verbs and resources that were asked for, in order.
        denied: verbs that the caller may not use.
        answers: statuses that the next requests are answered with, instead of being obeyed.
        on_request: called with the number of each request before it is answered.
    """

    mode: str = "Serverless"
    service: dict[str, Any] | None = None
    loads: Callable[[str], str] = lambda uri: "ok"
    reads_until_ready: int = 2
    requests: list[tuple[str, str]] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    answers: list[int] = field(default_factory=list)
    on_request: Callable[[str, int], None] = lambda verb, number: None
    tags: bool = True
    revisions: list[Revision] = field(default_factory=list)
    history: list[dict[str, int]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    _version: int = 100
    _below: int = 0
    _below_spec: str = ""

    # What tests do and see.

    def create(self, uri: str = "s3://models/old/saved_model", **predictor: Any) -> None:
        """A service that has been running for a while."""
        model = {"modelFormat": {"name": "tensorflow"}, "storageUri": uri, "protocolVersion": "v2"}
        made = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "generation": 1,
                "resourceVersion": "1",
                "annotations": {"team": "vision"},
            },
            "spec": {
                "predictor": {
                    "serviceAccountName": "models-reader",
                    "model": model | predictor.pop("model", {}),
                    **predictor,
                }
            },
            "status": {},
        }
        self.service = _defaulted(made)
        assert problems(self.service) == []
        for _ in range(self.reads_until_ready + 2):
            self._reconcile()
        self.history.clear()

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Someone else changes the spec."""
        with self.lock:
            edited = copy.deepcopy(self.service)
            change(edited)
            self._store(edited)

    def served(self, host: str) -> str | None:
        """Whose model answers at a host: the storageUri of the revision with the most traffic."""
        with self.lock:
            component = self.service["status"]["components"]["predictor"]
            if self.mode != "Serverless":
                ready = [r for r in self.revisions if r.ready]
                return ready[-1].uri if ready else None
            by_name = {revision.name: revision for revision in self.revisions}
            traffic = component["traffic"]
            if host.startswith("latest-"):
                (name,) = [t["revisionName"] for t in traffic if t.get("tag") == "latest"]
            else:
                name = max(traffic, key=lambda t: t["percent"])["revisionName"]
            return by_name[name].uri

    def spec_of_user(self) -> dict[str, Any]:
        """All that a user would have written."""
        metadata = self.service["metadata"]
        return {"annotations": metadata.get("annotations"), "spec": self.service["spec"]}

    def shares(self) -> dict[str, int]:
        """Percent of the traffic by storageUri."""
        return self.history[-1] if self.history else {}

    # The API.

    def answer(self, asked: Asked) -> tuple[int, Any]:
        verb = _VERBS[asked.method]
        namespace, _, rest = asked.path.removeprefix(_PREFIX).partition("/")
        resource, _, name = rest.partition("/")
        self.requests.append((verb, resource))
        self.on_request(verb, len(self.requests))
        with self.lock:
            if self.answers and (status := self.answers.pop(0)):
                return status, _status(status, "not now")
            if verb in self.denied:
                who = 'inferenceservices.serving.kserve.io "digits" is forbidden: User "ci" cannot'
                return 403, _status(403, f"{who} {verb} resource")
            found = self.service
            if found is None or (namespace, resource, name) != (
                NAMESPACE,
                "inferenceservices",
                NAME,
            ):
                return 404, _status(404, "not found")
            if verb == "get":
                self._reconcile()
                return 200, self.service
            if verb != "patch":
                return 405, _status(405, "not allowed")
            return self._patch(asked.query, asked.headers, asked.body)

    def _patch(self, query: Any, headers: Any, body: Any) -> Any:
        if headers["Content-Type"] != "application/merge-patch+json":
            return 415, _status(415, "the body of the request was in an unknown format")
        version = body.get("metadata", {}).pop("resourceVersion", None)
        if version not in (None, self.service["metadata"]["resourceVersion"]):
            return 409, _status(409, "the object has been modified; please apply your changes")
        wanted = _defaulted(_merged(self.service, body))
        wanted["status"] = self.service["status"]
        if found := problems(wanted):
            return 422, _status(422, "; ".join(found)[:300])
        for key, value in wanted["metadata"].get("annotations", {}).items():
            if not isinstance(value, str):
                return 422, _status(422, f"annotation {key} is no string")
        if query.get("dryRun") == ["All"]:
            return 200, wanted
        self._store(wanted)
        return 200, self.service

    def _store(self, wanted: dict[str, Any]) -> None:
        changed = wanted["spec"] != self.service["spec"]
        if changed or wanted["metadata"] != self.service["metadata"]:
            wanted["metadata"]["generation"] += changed
            self._version += 1
            wanted["metadata"]["resourceVersion"] = str(self._version)
        self.service = wanted

    # The controller.

    def _reconcile(self) -> None:
        before = copy.deepcopy(self.service["status"])
        self._make_revision()
        for revision in self.revisions:
            revision.age += 1
            ages = revision.age > self.reads_until_ready
            revision.ready = revision.ready or (ages and self.loads(revision.uri) == "ok")
        if self.mode == "Serverless":
            self._serverless()
        else:
            self._raw()
        assert problems(self.service) == []
        if self.service["status"] != before:
            self._version += 1  # updates of the status change it as well
            self.service["metadata"]["resourceVersion"] = str(self._version)

    def _make_revision(self) -> None:
        predictor = dict(self.service["spec"]["predictor"])
        predictor.pop("canaryTrafficPercent", None)
        annotations = dict(self.service["metadata"].get("annotations") or {})
        for key in _NOT_PASSED_ON:
            annotations.pop(key, None)
        template = json.dumps([predictor, annotations], sort_keys=True)
        if not self.revisions or self.revisions[-1].template != template:
            name = f"{NAME}-predictor-{len(self.revisions) + 1:05}"
            self.revisions.append(
                Revision(name, template, predictor["model"].get("storageUri", ""))
            )

    def _serverless(self) -> None:
        status = self.service["status"]
        component = status.setdefault("components", {}).setdefault("predictor", {})
        created = self.revisions[-1]
        ready = next((r for r in reversed(self.revisions) if r.ready), None)
        traffic = self._traffic(component, ready)
        below = json.dumps([created.template, traffic])
        self._below += below != self._below_spec
        self._below_spec = below
        component["latestCreatedRevision"] = created.name
        self._propagate(component, created, ready, traffic)
        if ready:
            component["latestReadyRevision"] = ready.name
        component["traffic"] = traffic
        uris = {revision.name: revision.uri for revision in self.revisions}
        shares: dict[str, int] = {}
        for target in traffic:
            uri = uris[target["revisionName"]]
            shares[uri] = shares.get(uri, 0) + target["percent"]
        self.history.append(shares)
        status["observedGeneration"] = self._below
        status["deploymentMode"] = self.mode
        self._conditions(created, ready)

    def _traffic(self, component: dict[str, Any], ready: Revision | None) -> list[dict[str, Any]]:
        if ready is None:
            return []
        percent = self.service["spec"]["predictor"].get("canaryTrafficPercent")
        rolled_out = component.get("latestRolledoutRevision")
        shared = percent is not None and bool(rolled_out)
        latest = {
            "latestRevision": True,
            "revisionName": ready.name,
            "percent": percent if shared else 100,
        }
        annotations = self.service["metadata"].get("annotations") or {}
        if self.tags and annotations.get("serving.kserve.io/enable-tag-routing") == "true":
            latest |= {"tag": "latest", "url": f"http://latest-{NAME}-predictor.{DOMAIN}"}
        if not shared or percent == 100:
            return [latest]
        previous = {
            "latestRevision": False,
            "revisionName": rolled_out,
            "percent": 100 - percent,
            "tag": "prev",
            "url": f"http://prev-{NAME}-predictor.{DOMAIN}",
        }
        return [latest, previous]

    def _propagate(
        self,
        component: dict[str, Any],
        created: Revision,
        ready: Revision | None,
        traffic: list[dict[str, Any]],
    ) -> None:
        for target in traffic:
            if not target["latestRevision"]:
                continue
            if component.get("latestRolledoutRevision") != ready.name:
                if target["percent"] == 100:
                    if "latestRolledoutRevision" in component:
                        component["previousRolledoutRevision"] = component[
                            "latestRolledoutRevision"
                        ]
                    component["latestRolledoutRevision"] = ready.name
            elif ready is created and target["percent"] < 100:
                whole = sum(t["percent"] for t in traffic if t["revisionName"] == ready.name)
                if whole == 100 and component.get("previousRolledoutRevision"):
                    component["latestRolledoutRevision"] = component["previousRolledoutRevision"]

    def _raw(self) -> None:
        status, created = self.service["status"], self.revisions[-1]
        if created.template != self._below_spec:
            self._below, self._below_spec = self._below + 1, created.template
        status["observedGeneration"] = self._below
        status["deploymentMode"] = self.mode
        status.setdefault("components", {})["predictor"] = {}
        ready = next((r for r in reversed(self.revisions) if r.ready), None)
        self.history.append({ready.uri: 100} if ready else {})
        self._conditions(created, ready)

    def _conditions(self, created: Revision, ready: Revision | None) -> None:
        status, whole = self.service["status"], created is ready
        loads = self.loads(created.uri)
        failed = loads == "fail" and created.age > self.reads_until_ready
        value = "True" if whole else "False" if failed else "Unknown"
        about = {} if whole else {"reason": "RevisionFailed" if failed else "Deploying"}
        status["conditions"] = [
            {"type": kind, "status": value, **about} for kind in ("PredictorReady", "Ready")
        ]
        if ready:
            status["url"] = f"http://{NAME}.{DOMAIN}"
            component = status["components"]["predictor"]
            component["url"] = f"http://{NAME}-predictor.{DOMAIN}"
        status["modelStatus"] = {
            "transitionStatus": "UpToDate"
            if whole
            else "BlockedByFailedLoad"
            if failed
            else "InProgress",
            "states": {
                "activeModelState": "Loaded" if ready else "Pending",
                "targetModelState": "Loaded" if whole else "FailedToLoad" if failed else "Loading",
            },
        }
        if failed:
            status["modelStatus"]["lastFailureInfo"] = {
                "reason": "ModelLoadFailed",
                "message": "NoSuchBucket: the specified bucket does not exist",
                "exitCode": 1,
            }


def _defaulted(service: dict[str, Any]) -> dict[str, Any]:
    """What KServe's mutating webhook adds."""
    made = copy.deepcopy(service)
    predictor = made["spec"]["predictor"]
    predictor.setdefault("minReplicas", 1)
    if "model" in predictor:
        predictor["model"].setdefault("name", "")
        predictor["model"].setdefault("resources", {})
        if predictor["model"]["modelFormat"]["name"] == "tensorflow":
            predictor["model"].setdefault("runtime", "kserve-tensorflow-serving")
    return made


def _merged(current: Any, patch: Any) -> Any:
    """RFC 7396, in the words of the RFC."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}


@contextmanager
def serving(api: KServe, file: Path) -> Iterator[KServe]:
    """Serve the API over HTTP; the file, a KUBECONFIG, is written and leads there."""
    with json_api(api.answer) as address:
        file.write_text(kubeconfig(address))
        yield api
