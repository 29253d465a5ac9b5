"""Only a model with a passing verdict of its own is published, whole or not at all."""

from __future__ import annotations

import importlib
import io
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
from tiny import tiny_cnn

from lrf_core.artifacts import Check, Cost, Lineage, ModelMeasures, Release, Verdict
from lrf_core.errors import ArtifactError, PublishRefusedError, SpecError, StorageError
from lrf_core.models.load import load_model, model_digest
from lrf_core.releases import release_names
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

PASSED = Check(name="accuracy drop", limit="at most 1 point", measured="0.2", passed=True)
FAILED = Check(name="params", limit="at least 50% fewer", measured="12%", passed=False)
UNMEASURED = Check(name="latency", limit="at most 1x", measured=None, passed=True)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Trained for one step, so that it carries an optimizer with slots."""
    model = tiny_cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((4, 16, 16, 3), "float32"), np.zeros(4), verbose=0)
    return model


@pytest.fixture
def attachments(tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / "made" / name for name in ("plan.json", "report.html")}
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


def verdict_of(model: keras.Model, **changes: Any) -> Verdict:
    measures = ModelMeasures(cost=Cost(params=10, macs=100), weight_bytes=40)
    verdict = Verdict(
        lineage=Lineage(inputs={}, settings={}),
        passed=True,
        baseline_digest="b" * 64,
        candidate_digest=model_digest(model),
        checks=(PASSED,),
        baseline=measures,
        candidate=measures,
    )
    return verdict.model_copy(update=changes)


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
    names = {*ALWAYS, "plan.json", "report.html"}
    assert stored(to) == {*(f"{folder}/{name}" for name in names), "tiny/index.json"}
    store = open_store(to)
    assert store.get(f"{folder}/plan.json") == b"content of plan.json"
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
    attachments["plan.json"].write_text("another plan")
    with caplog.at_level(logging.INFO, "lrf"):
        again = publish(
            model, verdict_of(model, agreement=99.0), to, name="tiny", attachments=attachments
        )

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
    ("changes", "message"),
    [
        ({"passed": False}, "was altered .it says not passed, but no check failed"),
        ({"passed": False, "checks": (PASSED, FAILED)}, "failed: params"),
        ({"passed": True, "checks": (PASSED, FAILED)}, "was altered .* but failed: params"),
        ({"passed": True, "checks": (PASSED, UNMEASURED)}, "not measured: latency"),
        ({"passed": True, "checks": ()}, "no checks"),
        ({"candidate_digest": "c" * 64}, "is about model cccccccccccc"),
    ],
    ids=["altered answer", "failed", "altered", "unmeasured", "empty", "foreign"],
)
def test_without_a_passing_verdict_of_its_own_nothing_is_written(
    model: keras.Model, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    store = tmp_path / "store"
    with pytest.raises(PublishRefusedError, match=message) as caught:
        publish(model, verdict_of(model, **changes), str(store), name="tiny", attachments={})

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
    "name", ["", "a b", "../up", "a/b", ".hidden", "größe", "x" * 129, "blobs"]
)
def test_a_name_that_cannot_be_used_is_refused(
    model: keras.Model, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SpecError, match="release name"):
        publish(model, verdict_of(model), str(tmp_path / "s"), name=name, attachments={})

    assert not (tmp_path / "s").exists()


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
    wrong = {name: attachments["plan.json"]}
    with pytest.raises(ArtifactError, match="attachment name"):
        publish(model, verdict_of(model), str(tmp_path / "s"), name="tiny", attachments=wrong)

    assert not (tmp_path / "s").exists()


def test_a_missing_attachment_is_refused(model: keras.Model, tmp_path: Path) -> None:
    missing = {"plan.json": tmp_path / "nothing.json"}
    with pytest.raises(ArtifactError, match=r"plan\.json: no file at"):
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
    store.put(f"{folder}/plan.json", b"another plan")
    store.delete(f"{folder}/report.html")

    assert verify_release(store, release) == ["plan.json", "report.html"]
    caplog.set_level(logging.WARNING, "lrf")
    again = publish(model, verdict_of(model), to, name="tiny", attachments={})
    assert again == release
    assert verify_release(store, release) == []
    assert "plan.json is damaged; it is written again" in caplog.text


def test_a_release_that_is_not_there_or_not_readable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no release of 'tiny'"):
        read_release(str(tmp_path), "tiny", "v-1")
    open_store(str(tmp_path)).put("tiny/index.json", b'{"versions": []}')
    with pytest.raises(ArtifactError, match="is damaged or was changed by hand"):
        read_release(str(tmp_path), "tiny", "v-1")
