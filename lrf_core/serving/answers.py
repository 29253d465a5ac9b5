"""Whether a served model answers as the release says it does.

References:
    https://github.com/kserve/open-inference-protocol (v2)
    https://www.tensorflow.org/tfx/serving/api_rest#predict_api (v1, which KServe's TensorFlow
    runtime speaks)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import urllib3

from lrf_core.errors import LrfError
from lrf_core.redaction import one_line
from lrf_core.releases.answers import Array, SampleAnswers
from lrf_core.secrets.credentials import token_in

Protocol = Literal["v1", "v2"]

# A bearer token, where the ingress asks for one.
TOKEN_VARIABLE = "LRF_INFERENCE_TOKEN"  # noqa: S105 the name of it

_TIMEOUT_S = 60.0
# Numbers in one request: some MB of JSON, which every proxy lets through.
_NUMBERS = 200_000
_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


class NoAnswerError(LrfError):
    """The server cannot be reached, or refuses the request; it may be a moment too early."""


class WrongAnswerError(LrfError):
    """The server answers, and not as the release does."""


@dataclass(frozen=True)
class Server:
    """Where a model is served.

    Attributes:
        url: http://host[:port] of it, or of the ingress gateway.
        host: the Host header that the gateway goes by; None: that of `url`.
        model: its name there.
        protocol: that it speaks.
    """

    url: str
    host: str | None
    model: str
    protocol: Protocol

    def answers(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What it answers to samples `(n, ...)` by input name: `(n, ...)` by output name.

        v1 names no output if there is only one; it is "" then.

        Raises:
            NoAnswerError: it cannot be reached, or refuses.
            WrongAnswerError: what comes back is no answer in this protocol.
        """
        count = len(next(iter(inputs.values())))
        of_one = sum(values[0].size for values in inputs.values())
        batch = max(1, _NUMBERS // max(1, of_one))
        parts = []
        for start in range(0, count, batch):
            part = {name: values[start : start + batch] for name, values in inputs.items()}
            parts.append(self._ask(part))
        if len({tuple(sorted(part)) for part in parts}) != 1:
            raise WrongAnswerError("the server names its outputs differently from time to time")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _ask(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        count = len(next(iter(inputs.values())))
        if self.protocol == "v2":
            path, body = f"/v2/models/{self.model}/infer", _v2_request(inputs)
        else:
            path, body = f"/v1/models/{self.model}:predict", _v1_request(inputs)
        answer = self._post(path, body)
        try:
            found = _v2_outputs(answer) if self.protocol == "v2" else _v1_outputs(answer, count)
            if any(len(values) != count for values in found.values()):
                raise ValueError("another number of answers than of samples")
            return found
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WrongAnswerError(
                f"{self.url}{path} does not answer in protocol {self.protocol}: "
                f"{type(error).__name__} {one_line(error, 200)}"
            ) from None

    def _post(self, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.host:
            headers["Host"] = self.host
        if token := token_in(TOKEN_VARIABLE):
            headers["Authorization"] = f"Bearer {token}"
        with urllib3.PoolManager(retries=False, timeout=_TIMEOUT_S) as http:
            try:
                answer = http.request(
                    "POST",
                    f"{self.url.rstrip('/')}{path}",
                    body=json.dumps(body, separators=(",", ":")).encode(),
                    headers=headers,
                )
            except urllib3.exceptions.HTTPError as error:
                raise NoAnswerError(
                    f"{self.url} cannot be reached ({type(error).__name__}); where its host name "
                    "does not resolve here, give the ingress gateway's address as --url"
                ) from None
        at = f"{self.url}{path}" + (f" (host {self.host})" if self.host else "")
        if answer.status != 200:
            said = one_line(answer.data.decode(errors="replace"), 200)
            raise NoAnswerError(f"{at} answers with HTTP {answer.status}: {said}")
        try:
            return json.loads(answer.data)
        except ValueError:
            raise WrongAnswerError(f"{at} does not answer with JSON") from None


def server_at(url: str, ingress: str | None, model: str, protocol: Protocol) -> Server:
    """The server at an address that KServe gives, reached through an ingress if there is one."""
    if ingress:
        return Server(ingress, urlsplit(url).netloc, model, protocol)
    return Server(url, None, model, protocol)


def compare(recorded: SampleAnswers, found: Mapping[str, Array], tolerance: float) -> float:
    """The largest difference between two answers, as a share of the largest recorded one.

    Raises:
        WrongAnswerError: it is above the tolerance, another class leads by more than that, or the
            outputs are others.
    """
    expected = recorded.outputs
    if len(expected) == 1 and len(found) == 1:
        # One output is itself, whatever a server calls it.
        found = dict(zip(expected, found.values(), strict=True))
    if set(expected) != set(found):
        raise WrongAnswerError(
            f"the server answers with the outputs {', '.join(sorted(found))}; the release with "
            f"{', '.join(sorted(expected))}"
        )
    return max(_apart(name, expected[name], found[name], tolerance) for name in expected)


def _apart(name: str, expected: Array, found: Array, tolerance: float) -> float:
    if found.size != expected.size:
        raise WrongAnswerError(
            f"output {name} has shape {found.shape}, the release's has {expected.shape}"
        )
    wanted = np.asarray(expected, np.float64)
    got = np.asarray(found, np.float64).reshape(wanted.shape)
    if not np.isfinite(got).all():
        raise WrongAnswerError(f"output {name} holds values that are not finite")
    scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
    apart = float(np.abs(wanted - got).max(initial=0.0)) / scale
    if apart > tolerance:
        raise WrongAnswerError(
            f"output {name} is {apart:.2g} of the largest answer apart from the release's own "
            f"answers, more than {tolerance:g}"
        )
    return apart


def _v2_request(inputs: Mapping[str, Array]) -> Any:
    return {
        "inputs": [
            {
                "name": name,
                "shape": list(values.shape),
                "datatype": _DATATYPES[values.dtype.name],
                "data": values.ravel().tolist(),
            }
            for name, values in inputs.items()
        ]
    }


def _v2_outputs(answer: Any) -> dict[str, Array]:
    return {
        output["name"]: np.asarray(output["data"], np.float64).reshape(output["shape"])
        for output in answer["outputs"]
    }


def _v1_request(inputs: Mapping[str, Array]) -> Any:
    if len(inputs) == 1:
        return {"instances": next(iter(inputs.values())).tolist()}
    columns = {name: values.tolist() for name, values in inputs.items()}
    count = len(next(iter(columns.values())))
    return {
        "instances": [{name: column[i] for name, column in columns.items()} for i in range(count)]
    }


def _v1_outputs(answer: Any, count: int) -> dict[str, Array]:
    rows = answer["predictions"]
    if count and isinstance(rows[0], dict):
        return {name: np.asarray([row[name] for row in rows], np.float64) for name in rows[0]}
    return {"": np.asarray(rows, np.float64)}
