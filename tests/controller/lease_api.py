"""A Kubernetes API with Leases in memory: validated bodies, optimistic concurrency."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import kubernetes.client
import kubernetes_validate
from json_api import Asked, json_api

_PATH = re.compile(r"/apis/coordination\.k8s\.io/v1/namespaces/([^/]+)/leases(?:/([^/]+))?")
# Of the API's MicroTime, which wants six digits.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@dataclass
class LeaseApi:
    """Attributes:
    address: where it listens.
    leases: by namespace and name, as they are stored.
    broken: bodies that a real API would not take.
    down: whether it fails now.
    """

    address: str = ""
    leases: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    down: bool = False
    version: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spec(self, name: str = "team/lrf-controller") -> dict[str, Any]:
        return dict(self.leases[name]["spec"])

    def client(self) -> kubernetes.client.CoordinationV1Api:
        configuration = kubernetes.client.Configuration(host=self.address)
        configuration.retries = False
        return kubernetes.client.CoordinationV1Api(kubernetes.client.ApiClient(configuration))

    def answer(self, asked: Asked) -> tuple[int, Any]:
        with self.lock:
            return self._answer(asked.method, asked.path, asked.body)

    def _answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        found = _PATH.fullmatch(path)
        if self.down or not found:
            return _status(503 if self.down else 404, "ServiceUnavailable" if self.down else "")
        name = f"{found[1]}/{found[2] or (body or {}).get('metadata', {}).get('name')}"
        known = self.leases.get(name)
        if method == "GET":
            return (200, known) if known else _status(404, "NotFound")
        assert body is not None
        self._check(body)
        if method == "POST":
            return _status(409, "AlreadyExists") if known else self._store(name, body, 201)
        if known is None:
            return _status(404, "NotFound")
        if body["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
            return _status(409, "Conflict")
        return self._store(name, body, 200)

    def _store(self, name: str, body: dict[str, Any], status: int) -> tuple[int, Any]:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.leases[name] = body
        return status, body

    def _check(self, body: dict[str, Any]) -> None:
        try:
            kubernetes_validate.validate(body, "1.31", strict=True)
        except kubernetes_validate.ValidationError as error:
            self.broken.append(str(error))
        if body["spec"].get("holderIdentity") == "":
            self.broken.append("holderIdentity must not be empty")
        for each in ("acquireTime", "renewTime"):
            if not _TIME.fullmatch(body["spec"].get(each, "")):
                self.broken.append(f"{each} is {body['spec'].get(each)}")


def _status(code: int, reason: str) -> tuple[int, Any]:
    return code, {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason}


@contextmanager
def lease_api() -> Iterator[LeaseApi]:
    """The running server; every body must have been one that the real API takes."""
    api = LeaseApi()
    with json_api(api.answer) as api.address:
        yield api
    assert api.broken == []
