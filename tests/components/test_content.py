"""Arguments tell contents apart: the same for the same content, others for another."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seaweed import Seaweed

from components.content import check_content, content_of
from components.step import step
from lrf_core.errors import ArtifactError
from lrf_core.spec import Spec, make_spec
from lrf_core.storage import Store, open_store
from lrf_core.storage.content import content_at

# The server stays as it is between two examples, each of which has places of its own.
IGNORED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
contents = st.dictionaries(
    st.from_regex(r"[a-d]/[a-d]", fullmatch=True), st.binary(max_size=4), min_size=1, max_size=4
)


@pytest.fixture
def inputs(s3_settings: Seaweed, request: pytest.FixtureRequest) -> str:
    """A prefix with a model and data below."""
    prefix = f"s3://{s3_settings.bucket}/inputs/{request.node.name}"
    store = open_store(prefix)
    store.put("model.keras", b"model")
    store.put("images/cat/1.png", b"cat")
    store.put("images/dog/1.png", b"dog")
    return prefix


def spec_of(inputs: str, **settings: object) -> Spec:
    return make_spec({"model": f"{inputs}/model.keras", "data": f"{inputs}/images/", **settings})


def test_the_same_content_is_the_same_argument(inputs: str) -> None:
    first = content_of(spec_of(inputs))
    assert len(first.digest) == 64
    assert first.reason == ""
    # What is beside the inputs, and what asks for other work, is no content.
    open_store(inputs).put("imagesque", b"another")
    assert content_of(spec_of(inputs, seed=7)) == first
    # Nor does writing the same again change it.
    open_store(inputs).put("images/cat/1.png", b"cat")
    assert content_of(spec_of(inputs)) == first


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("model.keras", b"Model"),
        ("images/cat/1.png", b"CAT"),
        ("images/cat/2.png", b"cat"),
    ],
)
def test_other_content_is_another_argument(inputs: str, key: str, content: bytes) -> None:
    first = content_of(spec_of(inputs))
    open_store(inputs).put(key, content)
    assert content_of(spec_of(inputs)).digest not in ("", first.digest)


def test_what_another_program_wrote_is_told_apart_too(inputs: str, seaweed: Seaweed) -> None:
    key = inputs.partition(seaweed.bucket + "/")[2] + "/model.keras"
    digests = set()
    for content in (b"one", b"two", b"one"):
        seaweed.client().put_object(seaweed.bucket, key, BytesIO(content), len(content))
        digests.add(content_of(spec_of(inputs)).digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"data": "examples.digits.train:data"}, "what is in data: examples.digits.train:data"),
        ({"data": "/volume/images"}, "what is in data: /volume/images cannot be seen"),
        ({"explore": {"latency": "/volume/latency.json"}}, "what is in explore.latency"),
        ({"weights": "w.h5"}, "what is in weights: w.h5 cannot be seen"),
    ],
)
def test_what_cannot_be_seen_has_no_digest(
    inputs: str, settings: dict[str, object], reason: str
) -> None:
    content = content_of(spec_of(inputs, **{"data": f"{inputs}/images", **settings}))
    assert content.digest == ""
    assert reason in content.reason


def test_what_is_not_there_has_no_digest(inputs: str) -> None:
    content = content_of(spec_of(f"{inputs}/elsewhere"))
    assert content.digest == ""
    assert content.reason.startswith("there is nothing at model: s3://")


def test_without_keys_there_is_no_digest(
    inputs: str, monkeypatch: pytest.MonkeyPatch, seaweed: Seaweed
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    content = content_of(spec_of(inputs))
    assert content.digest == ""
    assert content.reason.startswith("model cannot be seen from here: ")
    assert seaweed.secret_key not in content.reason


def test_a_step_works_on_the_content_it_was_submitted_for(inputs: str) -> None:
    spec = spec_of(inputs)
    digest = content_of(spec).digest
    check_content(spec, digest)
    open_store(inputs).put("model.keras", b"Model")
    check_content(spec, "")
    with pytest.raises(ArtifactError, match=r"not what this run was submitted for.*has changed"):
        check_content(spec, digest)
    with pytest.raises(ArtifactError, match="submit it again"):
        check_content(spec_of(f"{inputs}/elsewhere"), digest)


@pytest.mark.parametrize("changed", ["before", "meanwhile"])
def test_a_step_ends_where_the_content_has_changed(
    inputs: str, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(inputs)
    digest = content_of(spec).digest
    worked = []

    def work() -> None:
        with step("merge", spec.model_dump_json(), content=digest):
            worked.append(True)
            open_store(inputs).put("model.keras", b"Model")

    if changed == "before":
        open_store(inputs).put("model.keras", b"Model")
    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 2
    assert bool(worked) == (changed == "meanwhile")
    assert (
        "[lrf merge] failed, exit code 2: the model or the data is not" in capsys.readouterr().out
    )
    assert not logging.getLogger("lrf").handlers


@settings(max_examples=25, deadline=None, suppress_health_check=IGNORED)
@given(contents, contents)
@pytest.mark.parametrize("kind", ["directory", "seaweed"])
def test_listings_are_equal_where_contents_are(
    kind: str,
    s3_settings: Seaweed,
    tmp_path_factory: pytest.TempPathFactory,
    one: dict[str, bytes],
    other: dict[str, bytes],
) -> None:
    def kept(content: dict[str, bytes]) -> Store:
        # Each in a place of its own.
        place = tmp_path_factory.mktemp("store")
        uri = str(place) if kind == "directory" else f"s3://{s3_settings.bucket}/{place.name}"
        store = open_store(f"{uri}/{id(content)}")
        for key, each in content.items():
            store.put(f"data/{key}", each)
        return store

    stores = kept(one), kept(other), kept(dict(one))
    listings = [content_at(store, "data") for store in stores]
    assert (listings[0] == listings[1]) == (one == other)
    assert listings[0] == listings[2] == content_at(stores[0], "data/")
    assert content_at(stores[0], "dat") == []
    assert Path(listings[0][0][0]).parts[0] == "data"
