"""An ingress with model servers behind it, which run the SavedModel that KServe would load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from json_api import Asked, json_api

Model = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass
class ModelServer:
    """Answers v1 and v2 requests.

    Attributes:
        model_at: the model behind a host name; None: nothing is served there.
        inputs: names of a model's inputs, for v1 requests that name none.
        refuse: statuses that the next requests are answered with.
    """

    model_at: Callable[[str], Model | None]
    inputs: tuple[str, ...] = ("image",)
    name: str = "digits"
    refuse: list[int] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, host: str, path: str, body: Any) -> tuple[int, Any]:
        self.requests.append((host, path))
        if self.refuse:
            return self.refuse.pop(0), {"error": "not now"}
        model = self.model_at(host)
        if model is None:
            return 404, {"error": "no such host"}
        if path == f"/v2/models/{self.name}/infer":
            return 200, self._v2(model, body)
        if path == f"/v1/models/{self.name}:predict":
            return 200, self._v1(model, body)
        return 404, {"error": f"no model at {path}"}

    def _v2(self, model: Model, body: Any) -> Any:
        types = {"FP32": "float32", "UINT8": "uint8", "INT64": "int64", "FP64": "float64"}
        inputs = {
            tensor["name"]: np.array(tensor["data"], types[tensor["datatype"]]).reshape(
                tensor["shape"]
            )
            for tensor in body["inputs"]
        }
        return {
            "model_name": self.name,
            "outputs": [
                {
                    "name": name,
                    "shape": list(values.shape),
                    "datatype": "FP32",
                    "data": np.asarray(values, float).ravel().tolist(),
                }
                for name, values in model(inputs).items()
            ],
        }

    def _v1(self, model: Model, body: Any) -> Any:
        rows = body["instances"]
        if isinstance(rows[0], dict):
            inputs = {name: np.array([row[name] for row in rows], "float32") for name in rows[0]}
        else:
            inputs = {self.inputs[0]: np.array(rows, "float32")}
        outputs = {name: np.asarray(values, float) for name, values in model(inputs).items()}
        if len(outputs) == 1:
            return {"predictions": next(iter(outputs.values())).tolist()}
        count = len(rows)
        return {
            "predictions": [{n: v[i].tolist() for n, v in outputs.items()} for i in range(count)]
        }


@contextmanager
def served(server: ModelServer) -> Iterator[ModelServer]:
    """Serve over HTTP at `server.url`."""

    def answer(asked: Asked) -> tuple[int, Any]:
        server.headers.append(dict(asked.headers))
        return server.answer(asked.headers["Host"], asked.path, asked.body)

    with json_api(answer) as server.url:
        yield server
