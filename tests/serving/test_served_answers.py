"""Answers of a served model, by both protocols, compared with those that were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from model_server import ModelServer, served

from lrf_core.releases.answers import SampleAnswers
from lrf_core.serving.answers import (
    NoAnswerError,
    Server,
    WrongAnswerError,
    compare,
    server_at,
)

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((5, 4, 4, 1), dtype=np.float32)


def summed(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model of any inputs with one output."""
    return {"answer": sum(values.reshape(len(values), -1)[:, :2] for values in inputs.values())}


def two_heads(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"a": summed(inputs)["answer"], "b": summed(inputs)["answer"] * 2}


@pytest.mark.parametrize("protocol", ["v1", "v2"])
@pytest.mark.parametrize("model", [summed, two_heads])
@pytest.mark.parametrize("names", [("image",), ("left", "right")])
def test_any_number_of_inputs_and_outputs(protocol: Any, model: Any, names: Any) -> None:
    inputs = {name: IMAGES * (i + 1) for i, name in enumerate(names)}
    recorded = SampleAnswers(inputs, model(inputs))
    with served(ModelServer(lambda host: model)) as server:
        found = Server(server.url, None, "digits", protocol).answers(inputs)
    assert compare(recorded, found, 1e-6) < 1e-6


def test_large_samples_are_sent_in_several_requests() -> None:
    inputs = {"image": RANDOM.standard_normal((3, 400, 300), dtype=np.float32)}
    with served(ModelServer(lambda host: summed)) as server:
        found = Server(server.url, None, "digits", "v2").answers(inputs)
        assert len(server.requests) == 3
    assert compare(SampleAnswers(inputs, summed(inputs)), found, 1e-6) == 0


def test_integers_stay_integers() -> None:
    inputs = {"image": RANDOM.integers(0, 255, (2, 8)).astype(np.uint8)}
    types = []

    def typed(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        types.append(found["image"].dtype)
        return summed(found)

    with served(ModelServer(lambda host: typed)) as server:
        Server(server.url, None, "digits", "v2").answers(inputs)
    assert types == [np.dtype(np.uint8)]


def test_the_ingress_is_told_the_host() -> None:
    with served(ModelServer(lambda host: summed)) as server:
        found = server_at("http://latest-digits.team.example.com", server.url, "digits", "v1")
        found.answers({"image": IMAGES})
        assert server.requests == [("latest-digits.team.example.com", "/v1/models/digits:predict")]


def test_a_token_is_sent_and_not_shown(monkeypatch) -> None:
    monkeypatch.setenv("LRF_INFERENCE_TOKEN", "sesame-token")
    with served(ModelServer(lambda host: summed, refuse=[403])) as server:
        with pytest.raises(NoAnswerError, match="HTTP 403") as error:
            Server(server.url, None, "digits", "v1").answers({"image": IMAGES})
        assert server.headers[0]["Authorization"] == "Bearer sesame-token"
    assert "sesame" not in str(error.value)


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(NoAnswerError, match=r"cannot be reached.*--url"):
        Server("http://127.0.0.1:9", None, "digits", "v1").answers({"image": IMAGES})


@pytest.mark.parametrize(
    "answer",
    [
        {"predictions": [[1.0, 2.0]]},
        {"predictions": None},
        {"predictions": [[1.0], [2.0, 3.0], [4.0], [5.0], [6.0]]},
        {"outputs": []},
        [1, 2, 3],
    ],
)
def test_what_is_no_answer_of_the_protocol_is_wrong(answer: Any) -> None:
    class Odd(ModelServer):
        def answer(self, host: str, path: str, body: Any) -> tuple[int, Any]:
            return 200, answer

    with served(Odd(lambda host: None)) as server, pytest.raises(WrongAnswerError):
        Server(server.url, None, "digits", "v1").answers({"image": IMAGES})


def test_answers_have_to_be_as_close_as_asked() -> None:
    recorded = SampleAnswers({"image": IMAGES}, {"answer": np.array([[4.0, 1.0]] * 5)})
    close, far = np.array([[4.001, 1.0]] * 5), np.array([[4.01, 1.0]] * 5)
    assert compare(recorded, {"output_0": close}, 1e-3) == pytest.approx(0.00025)
    with pytest.raises(WrongAnswerError, match=r"0\.0025 of the largest answer apart"):
        compare(recorded, {"": far}, 1e-3)
    with pytest.raises(WrongAnswerError, match="not finite"):
        compare(recorded, {"": np.full((5, 2), np.nan)}, 1e-3)
    with pytest.raises(WrongAnswerError, match="has shape"):
        compare(recorded, {"": np.zeros((5, 3))}, 1e-3)
    with pytest.raises(WrongAnswerError, match="outputs a, b"):
        compare(recorded, {"a": close, "b": close}, 1e-3)
