"""Kubeflow's Model Registry in memory; every request and answer obeys the published schema."""

from __future__ import annotations

import itertools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from answering import serving, started
from openapi_core import OpenAPI
from openapi_core.contrib.werkzeug import WerkzeugOpenAPIRequest, WerkzeugOpenAPIResponse
from werkzeug import Request, Response

_SCHEMA = Path("schemas/kubeflow-model-registry.openapi.yaml")
_OLD, _NEW = "/api/model_registry/v1alpha3", "/api/model_registry/v1"
TOKEN = "token-of-the-registry-for-tests"

# Kinds of resources, by the last part of their paths.
_MODELS, _VERSIONS, _ARTIFACTS = "registered_models", "model_versions", "model_artifacts"
_KINDS = (_MODELS, _VERSIONS, _ARTIFACTS)

Resource = dict[str, Any]


def schema_file() -> Path:
    """The schema beside the repository, or beside a folder above it; skips if there is none."""
    for folder in Path(__file__).resolve().parents:
        if (path := folder / "shared" / _SCHEMA).is_file():
            return path
    pytest.skip(f"needs {_SCHEMA} in the folder `shared` beside the repository")


def load_schema() -> OpenAPI:
    schema = yaml.load(schema_file().read_bytes(), yaml.CSafeLoader)
    # Wherever the server listens.
    schema["servers"] = [{"url": "/"}]
    return OpenAPI.from_dict(schema)


class ModelRegistryServer:
    """What the client needs of the API: find, list, create, update, upsert.

    Attributes:
        address: where it listens while it runs.
        newest: whether the server has v1 beside v1alpha3, as those since mid 2026 do.
        broken: what did not obey the schema; tests assert that it stays empty.
        resources: by kind and id.
        requests: method and path of all that was asked for.
    """

    def __init__(self, schema: OpenAPI, *, newest: bool) -> None:
        self.schema, self.newest = schema, newest
        self.address = ""
        self.broken: list[str] = []
        self.requests: list[str] = []
        self.resources: dict[str, dict[str, Resource]] = {kind: {} for kind in _KINDS}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def named(self, kind: str, name: str) -> list[Resource]:
        return [each for each in self.resources[kind].values() if each["name"] == name]

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        prefix = _NEW if environ["PATH_INFO"].startswith(f"{_NEW}/") else _OLD
        known = environ["PATH_INFO"].startswith(f"{prefix}/") and (prefix == _OLD or self.newest)
        # The versions of the API differ in their paths only.
        environ["PATH_INFO"] = environ["PATH_INFO"].replace(prefix, _OLD, 1)
        request = Request(environ)
        if not known:
            return Response("404 page not found", 404, content_type="text/plain")(environ, start)
        with self._lock:
            response = self._answer(request)
        return response(environ, start)

    def _answer(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(401, "Unauthorized")
        asked = WerkzeugOpenAPIRequest(request)
        if errors := _reasons(self.schema.iter_request_errors(asked)):
            self.broken.append(f"{request.method} {request.path}: {errors}")
            return _error(400, errors)
        response = self._handle(request)
        answer = WerkzeugOpenAPIResponse(response)
        if errors := _reasons(self.schema.iter_response_errors(asked, answer)):
            self.broken.append(f"answer to {request.path}: {errors}")
        return response

    def _handle(self, request: Request) -> Response:
        parts = request.path.removeprefix(f"{_OLD}/").split("/")
        match request.method, parts:
            case "GET", [kind] if kind in _KINDS:
                return self._list(kind, request)
            case "GET", [one]:
                return self._find(f"{one}s", request)
            case "GET", [kind, key]:
                known = self.resources[kind].get(key)
                return _json(known) if known else _error(404, "not found")
            case "POST", [kind]:
                return self._create(kind, request.get_json())
            case "PATCH", [kind, key]:
                return self._update(kind, key, request.get_json())
            case "GET", ["model_versions", key, "artifacts"]:
                return self._list(_ARTIFACTS, request, parent=key)
            case "POST", ["model_versions", key, "artifacts"]:
                return self._upsert_artifact(key, request.get_json())
        raise AssertionError(f"the tests' Model Registry has no {request.method} {request.path}")

    def _list(self, kind: str, request: Request, parent: str | None = None) -> Response:
        items = [
            each
            for each in self.resources[kind].values()
            if parent is None or each["parent"] == parent
        ]
        limit = int(request.args.get("pageSize", 100))
        begin = int(request.args.get("nextPageToken") or 0)
        shown = [
            {name: value for name, value in each.items() if name != "parent"}
            for each in items[begin : begin + limit]
        ]
        token = str(begin + limit) if begin + limit < len(items) else ""
        page = {"items": shown, "size": len(shown), "pageSize": limit, "nextPageToken": token}
        return _json(page)

    def _find(self, kind: str, request: Request) -> Response:
        name, parent = request.args.get("name"), request.args.get("parentResourceId")
        for each in self.named(kind, name or ""):
            if kind == _MODELS or each["parent"] == parent:
                return _json(each)
        return _error(404, f"no {kind} found for name={name} parentResourceId={parent}")

    def _create(self, kind: str, given: Resource, parent: str | None = None) -> Response:
        parent = parent or given.get("registeredModelId")
        if kind == _VERSIONS and parent not in self.resources[_MODELS]:
            return _error(404, f"no registered model {parent}")
        if any(each["parent"] == parent for each in self.named(kind, given["name"])):
            return _error(409, f"{given['name']} already exists")
        now = str(time.time_ns() // 1_000_000)
        made = {
            **{name: value for name, value in given.items() if value is not None},
            "id": str(next(self._ids)),
            "parent": parent,
            "createTimeSinceEpoch": now,
            "lastUpdateTimeSinceEpoch": now,
        }
        self.resources[kind][made["id"]] = made
        return _json(made, 201)

    def _update(self, kind: str, key: str, given: Resource) -> Response:
        if key not in self.resources[kind]:
            return _error(404, f"no {kind} {key}")
        # As the real one does: properties are replaced as a whole.
        changes = {name: value for name, value in given.items() if value is not None}
        self.resources[kind][key].update(changes)
        return _json(self.resources[kind][key])

    def _upsert_artifact(self, version: str, given: Resource) -> Response:
        if version not in self.resources[_VERSIONS]:
            return _error(404, f"no model version {version}")
        if given.get("id"):
            return self._update(_ARTIFACTS, given["id"], given)
        return self._create(_ARTIFACTS, given, version)


def _json(content: Resource | None, status: int = 200) -> Response:
    shown = {name: value for name, value in (content or {}).items() if name != "parent"}
    return Response(json.dumps(shown), status, content_type="application/json")


def _error(status: int, message: str) -> Response:
    return _json({"code": str(status), "message": message}, status)


def _reasons(errors: Any) -> str:
    found = []
    for error in errors:
        cause = error.__cause__ or error
        found += [each.message for each in getattr(cause, "schema_errors", [])] or [str(cause)]
    return "; ".join(found)


@contextmanager
def running(
    server: ModelRegistryServer, tls: ssl.SSLContext | None = None
) -> Iterator[ModelRegistryServer]:
    """The server on a free port of loopback; it is stopped at the end."""
    with started(serving(server, tls)) as address:
        server.address = address
        yield server
