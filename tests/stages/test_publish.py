"""Only a model with a passing verdict of its own is published, whole or not at all."""

from __future__ import annotations

import importlib
import io
import json
import logging
import subprocess
import sys
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from judged import stepped_cnn, verdict_of
from tiny import tiny_cnn

from lrf_core.artifacts import Release
from lrf_core.errors import ArtifactError, PublishRefusedError, SpecError, StorageError
from lrf_core.export import open_exported
from lrf_core.models.load import load_model, model_digest
from lrf_core.releases import release_names, resolve
from lrf_core.releases.answers import read_answers, sample_answers
from lrf_core.spec import PublishSpec, make_spec
from lrf_core.stages.publish import publish, read_release, verify_release
from lrf_core.storage import open_store
from lrf_core.storage.local import LocalStore

pytestmark = pytest.mark.usefixtures("exported_once")

# The package offers the function under the module's name.
publishing = importlib.import_module("lrf_core.stages.publish")

# What every release holds beside its attachments.
ALWAYS = {
    "answers.npz",
    "manifest.json",
    "model.keras",
    "model.tflite",
    "saved_model/1/fingerprint.pb",
    "saved_model/1/saved_model.pb",
    "saved_model/1/variables/variables.data-00000-of-00001",
    "saved_model/1/variables/variables.index",
    "sbom.json",
    "verdict.json",
}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return stepped_cnn()


@pytest.fixture
def attachments(tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / "made" / name for name in ("notes.json", "report.html")}
    (tmp_path / "made").mkdir()
    for name, path in files.items():
        path.write_text(f"content of {name}")
    return files


@pytest.fixture(params=["local", "s3"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return (tmp_path / "store").as_uri()
    server = request.getfixturevalue("s3_settings")
    return f"s3://{server.bucket}/publish/{uuid.uuid4().hex}"


def stored(to: str) -> set[str]:
    """Everything but the blobs."""
    return {key for key in open_store(to).list() if not key.startswith("blobs/")}


def everything(to: str) -> dict[str, bytes]:
    store = open_store(to)
    return {key: store.get(key) for key in store.list()}


def test_a_release_holds_model_attachments_and_manifest(
    model: keras.Model, attachments: dict[str, Path], to: str, tmp_path: Path
) -> None:
    verdict = verdict_of(model)
    release = publish(model, verdict, to, name="tiny", attachments=attachments)

    folder = f"tiny/{release.version}"
    names = {*ALWAYS, "notes.json", "report.html"}
    assert stored(to) == {*(f"{folder}/{name}" for name in names), "tiny/index.json"}
    store = open_store(to)
    assert store.get(f"{folder}/notes.json") == b"content of notes.json"
    assert release == read_release(to, "tiny", release.version)
    assert release.location == store.url(folder)
    assert release.model_digest == verdict.candidate_digest
    assert release.verdict_digest == verdict.digest()
    assert release.lineage.parent == verdict.baseline_digest
    assert release.lineage.inputs == {
        "model": verdict.candidate_digest,
        "verdict": verdict.digest(),
        "baseline": verdict.baseline_digest,
    }
    assert {file.path for file in release.files} == names - {"manifest.json"}
    for file in release.files:
        found = store.stat(f"{folder}/{file.path}")
        assert found is not None
        assert (file.size, file.sha256) == (found.size, found.sha256)
    assert verify_release(store, release) == []
    store.get_file(f"{folder}/model.keras", tmp_path / "back.keras")
    assert model_digest(load_model(tmp_path / "back.keras")) == release.model_digest


def test_the_published_model_runs_where_lrf_is_unknown(model: keras.Model, tmp_path: Path) -> None:
    release = publish(
        model, verdict_of(model), str(tmp_path / "store"), name="tiny", attachments={}
    )
    folder = tmp_path / "store" / "tiny" / release.version
    samples = np.random.default_rng(0).uniform(0, 255, (5, 16, 16, 3)).astype("float32")
    np.save(tmp_path / "samples.npy", samples)
    program = (
        "import sys\n"
        "sys.modules['lrf_core'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "np.save('answers.npy', model.predict(np.load('samples.npy'), verbose=0))\n"
        "assert not model.compiled\n"
    )
    subprocess.run(
        [sys.executable, "-I", "-c", program, folder / "model.keras"], cwd=tmp_path, check=True
    )

    answers = np.load(tmp_path / "answers.npy")
    np.testing.assert_allclose(answers, model.predict(samples, verbose=0), atol=1e-6)
    with zipfile.ZipFile(folder / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as weights:
        assert "optimizer" not in weights


def test_publishing_the_same_model_again_changes_nothing(
    model: keras.Model, attachments: dict[str, Path], to: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish(model, verdict_of(model), to, name="tiny", attachments=attachments)
    before = everything(to)
    attachments["notes.json"].write_text("another plan")
    with caplog.at_level(logging.INFO, "lrf"):
        again = publish(model, verdict_of(model, lost=1), to, name="tiny", attachments=attachments)

    assert again == first
    assert everything(to) == before
    assert "nothing written" in caplog.text


def test_publishers_at_once_agree_on_one_sound_release(
    model: keras.Model, attachments: dict[str, Path], to: str
) -> None:
    def publish_one(_: int) -> Release:
        return publish(model, verdict_of(model), to, name="tiny", attachments=attachments)

    with ThreadPoolExecutor(4) as pool:
        releases = list(pool.map(publish_one, range(4)))

    assert len({release.version for release in releases}) == 1
    assert all(release == releases[0] for release in releases)
    assert len(stored(to)) == len(ALWAYS) + 3
    assert verify_release(open_store(to), releases[0]) == []


def test_the_same_content_gives_the_same_bytes(model: keras.Model, tmp_path: Path) -> None:
    first = publish(model, verdict_of(model), str(tmp_path / "1"), name="tiny", attachments={})
    stored_model = tmp_path / "1" / "tiny" / first.version / "model.keras"
    loaded = load_model(stored_model)
    again = publish(loaded, verdict_of(loaded), str(tmp_path / "2"), name="tiny", attachments={})

    assert again.version == first.version
    digests = [{file.path: file.sha256 for file in release.files} for release in (first, again)]
    for path in ("model.keras", "answers.npz", "model.tflite"):
        assert digests[0][path] == digests[1][path]
    with zipfile.ZipFile(stored_model) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert b"date" not in archive.read("metadata.json")


def test_another_model_or_name_is_another_version(model: keras.Model, tmp_path: Path) -> None:
    other, to = tiny_cnn(seed=1), str(tmp_path)
    releases = [
        publish(model, verdict_of(model), to, name="tiny", attachments={}),
        publish(other, verdict_of(other), to, name="tiny", attachments={}),
        publish(other, verdict_of(other), to, name="Tiny-2", attachments={}),
    ]

    assert len({release.version for release in releases}) == 3
    assert [release.name for release in releases] == ["tiny", "tiny", "tiny-2"]
    assert all((tmp_path / r.name / r.version / "manifest.json").is_file() for r in releases)


@pytest.mark.parametrize(
    ("numbers", "changes", "message"),
    [
        ({"lost": 20}, {}, "did not pass the gate .failed: accuracy_drop"),
        ({}, {"passed": False}, "was altered .it says not passed"),
        ({"lost": 20}, {"passed": True}, "was altered .it says passed"),
        ({}, {"checks": ()}, "check same_output_shape is missing"),
        ({}, {"candidate_digest": "c" * 64}, "is about model cccccccccccc"),
    ],
    ids=["failed", "altered answer", "altered", "empty", "foreign"],
)
def test_without_a_passing_verdict_of_its_own_nothing_is_written(
    model: keras.Model,
    tmp_path: Path,
    numbers: dict[str, Any],
    changes: dict[str, Any],
    message: str,
) -> None:
    store = tmp_path / "store"
    verdict = verdict_of(model, **numbers).model_copy(update=changes)
    with pytest.raises(PublishRefusedError, match=message) as caught:
        publish(model, verdict, str(store), name="tiny", attachments={})

    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert not store.exists()


def test_a_model_changed_after_its_verdict_is_refused(tmp_path: Path) -> None:
    model = tiny_cnn()
    verdict = verdict_of(model)
    kernel = model.get_layer("hidden").kernel
    kernel.assign_add(keras.ops.full(kernel.shape, 1e-6))
    with pytest.raises(PublishRefusedError, match="validate the model that is to be published"):
        publish(model, verdict, str(tmp_path / "store"), name="tiny", attachments={})

    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("", "a b", "../up", "a/b", ".hidden", "größe", "x" * 129, ".", "..", "a:1", "a@latest"),
        *("blobs", "releases", "latest", "Latest", "champion", "previous", "1", "007"),
        *("v-0123456789ab", "v-1", "v-...", "v-", "index.json", "intent.json"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    model: keras.Model, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SpecError, match="release name"):
        publish(model, verdict_of(model), str(tmp_path / "s"), name=name, attachments={})

    assert not (tmp_path / "s").exists()
    settings = {"model": "m", "data": "d", "publish": {"name": name}}
    with pytest.raises(SpecError, match=r"publish\.name.*release name"):
        make_spec(settings)


@pytest.mark.parametrize("name", ["v-net", "v1", "1.0", "latest-digits", "digits_2"])
def test_names_that_are_like_no_reference_can_be_used(name: str) -> None:
    assert make_spec({"model": "m", "data": "d", "publish": {"name": name}}).publish.name == name


@pytest.mark.parametrize(
    "name",
    [
        "model.keras",
        "manifest.json",
        "override.json",
        "saved_model",
        "sbom.json",
        "../a",
        "a/b",
        "",
    ],
)
def test_an_attachment_name_that_cannot_be_used_is_refused(
    model: keras.Model, attachments: dict[str, Path], tmp_path: Path, name: str
) -> None:
    wrong = {name: attachments["notes.json"]}
    with pytest.raises(ArtifactError, match="attachment name"):
        publish(model, verdict_of(model), str(tmp_path / "s"), name="tiny", attachments=wrong)

    assert not (tmp_path / "s").exists()


def test_a_missing_attachment_is_refused(model: keras.Model, tmp_path: Path) -> None:
    missing = {"notes.json": tmp_path / "nothing.json"}
    with pytest.raises(ArtifactError, match=r"notes\.json: no file at"):
        publish(model, verdict_of(model), str(tmp_path / "s"), name="tiny", attachments=missing)

    assert not (tmp_path / "s").exists()


def test_an_unwritable_store_is_one_clear_line(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write") as caught:
        publish(model, verdict_of(model), f"file://{tmp_path}/file", name="tiny", attachments={})

    assert caught.value.exit_code == 2
    assert (tmp_path / "file").read_text() == "not a folder"


def test_what_the_store_spoils_is_not_released(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SpoilingStore(LocalStore):
        def copy(self, source: str, target: str) -> None:
            super().copy(source, target)
            self.put(target, self.get(target)[:-1] + b"?")

    store = SpoilingStore(tmp_path / "store")
    monkeypatch.setattr(publishing, "open_store", lambda to: store)
    with pytest.raises(StorageError, match=r"is damaged each time that it is written"):
        publish(model, verdict_of(model), "spoiling", name="tiny", attachments={})

    assert release_names(store) == []


def test_a_store_that_goes_away_leaves_nothing_that_readers_see(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LeavingStore(LocalStore):
        def put_if_absent(self, key: str, content: bytes) -> bool:
            if key.endswith("manifest.json"):
                raise StorageError("the store is gone")
            return super().put_if_absent(key, content)

    store = LeavingStore(tmp_path / "store")
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "open_store", lambda to: store)
        with pytest.raises(StorageError, match="the store is gone"):
            publish(model, verdict_of(model), "leaving", name="tiny", attachments={})
    assert release_names(store) == []
    release = publish(
        model, verdict_of(model), str(tmp_path / "store"), name="tiny", attachments={}
    )

    assert verify_release(LocalStore(tmp_path / "store"), release) == []


def test_a_damaged_release_is_repaired_by_publishing_again(
    model: keras.Model, attachments: dict[str, Path], to: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = publish(model, verdict_of(model), to, name="tiny", attachments=attachments)
    store, folder = open_store(to), f"tiny/{release.version}"
    store.put(f"{folder}/notes.json", b"another plan")
    store.delete(f"{folder}/report.html")

    assert verify_release(store, release) == ["notes.json", "report.html"]
    caplog.set_level(logging.INFO, "lrf")
    again = publish(model, verdict_of(model), to, name="tiny", attachments={})
    assert again == release
    assert "as number 1; damage repaired" in caplog.text
    assert verify_release(store, release) == []
    assert "notes.json" in caplog.text
    assert "report.html" in caplog.text


def test_a_release_that_is_not_there_or_not_readable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no release of 'tiny'"):
        read_release(str(tmp_path), "tiny", "v-1")
    open_store(str(tmp_path)).put("tiny/index.json", b'{"versions": []}')
    with pytest.raises(ArtifactError, match="is damaged or was changed by hand"):
        read_release(str(tmp_path), "tiny", "v-1")


def test_all_formats_answer_as_recorded(model: keras.Model, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    release = publish(
        model,
        verdict_of(model),
        str(tmp_path),
        name="tiny",
        attachments={},
        settings=PublishSpec(onnx=True),
    )
    folder = tmp_path / "tiny" / release.version
    answers = sample_answers(LocalStore(tmp_path), release)
    assert list(answers.inputs) == ["image"]
    assert answers.inputs["image"].shape == (8, 16, 16, 3)
    assert list(answers.outputs) == ["output_0"]
    for path in ("saved_model/1", "model.tflite", "model.onnx"):
        found = open_exported(folder / path).run(answers.inputs)
        np.testing.assert_allclose(found["output_0"], answers.outputs["output_0"], atol=1e-5)
    stored = load_model(folder / "model.keras").predict(answers.inputs["image"], verbose=0)
    np.testing.assert_allclose(stored, answers.outputs["output_0"], atol=1e-6)


def test_without_the_onnx_extra_nothing_is_written(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "onnx" in name else name)
    with pytest.raises(SpecError, match=r"install lrf\[onnx\]"):
        publish(
            model,
            verdict_of(model),
            str(tmp_path / "store"),
            name="tiny",
            attachments={},
            settings=PublishSpec(onnx=True),
        )
    assert not (tmp_path / "store").exists()


def test_the_bill_of_materials_names_the_files_and_what_made_them(
    model: keras.Model, tmp_path: Path
) -> None:
    release = publish(model, verdict_of(model), str(tmp_path), name="tiny", attachments={})
    content = (tmp_path / "tiny" / release.version / "sbom.json").read_text()
    bom = json.loads(content)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    described = bom["metadata"]["component"]
    assert described["type"] == "machine-learning-model"
    assert (described["name"], described["version"]) == ("tiny", release.version)
    hashes = {part["name"]: part["hashes"][0]["content"] for part in described["components"]}
    digests = {file.path: file.sha256 for file in release.files if file.path != "sbom.json"}
    assert hashes == digests
    made_by = {part["name"]: part["purl"] for part in bom["components"]}
    assert made_by["keras"] == f"pkg:pypi/keras@{keras.__version__}"
    assert str(Path.home()) not in content


def test_registries_are_told_last_and_again_when_run_again(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    seen: list[tuple[str, int, str | None]] = []

    class Refusing:
        """A registry that is down the first time."""

        def register(self, release: Release, number: int, *, run_id: str | None = None) -> None:
            assert resolve(store, "tiny", number).release == release  # readers see it already
            seen.append((release.version, number, run_id))
            if len(seen) == 1:
                raise StorageError("the registry is down")

        def check(self) -> None:
            assert seen or not list(store.list())  # nothing is written before

        def set_alias(self, release: Release, number: int, alias: str) -> None:
            aliases.append(alias)

    aliases: list[str] = []
    monkeypatch.setattr(
        importlib.import_module("lrf_core.stages.publish"),
        "open_registry",
        lambda uri, store: Refusing(),
    )

    def publish_registered() -> Release:
        return publish(
            model,
            verdict_of(model),
            str(tmp_path),
            name="tiny",
            attachments={},
            settings=PublishSpec(registries=("any://registry",)),
            run_id="run 7",
        )

    with pytest.raises(StorageError, match="the registry is down"):
        publish_registered()
    release = publish_registered()
    assert seen == [(release.version, 1, "run 7")] * 2
    assert aliases == ["latest"]


def test_answers_that_are_none_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", **{"input/x": np.array([{}], dtype=object)})
    np.savez(tmp_path / "uneven.npz", **{"input/x": np.zeros(2), "output/y": np.zeros(3)})
    np.savez(tmp_path / "other.npz", **{"x": np.zeros(2)})
    (tmp_path / "text.npz").write_text("no archive")
    for file in tmp_path.iterdir():
        with pytest.raises(ArtifactError, match="holds no sample answers"):
            read_answers(file.read_bytes(), str(file))
