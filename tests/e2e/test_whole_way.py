"""`lrf compress` on files: both outcomes of the gate, resuming, and every kind of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from seaweed import Seaweed
from tiny import Trained

from lrf_core.commands import app as cli
from lrf_core.models.load import load_model, model_digest
from lrf_core.run import workflow
from lrf_core.run.outputs import Outputs

ALWAYS = {
    "analysis.json",
    "design_space.parquet",
    "plan.json",
    "finetune.json",
    "verdict.json",
    "report.html",
    "lineage.json",
}
QUICK = ["--set", "explore.samples=64", "--epochs", "1", "--params-reduction", "0.3"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error that says what went wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("lrf: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Lrf = Callable[..., Ended]


@pytest.fixture
def lrf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lrf:
    """Run the command line in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["lrf", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        caught = capsys.readouterr()
        return Ended(int(ended.value.code or 0), caught.out, caught.err)

    return run


def compress(trained: Trained, out: Path, *more: object) -> list[object]:
    return ["compress", trained.model_file, "--data", trained.data_file, "--out", out, *more]


def gate(tmp_path: Path, **limits: float | None) -> list[object]:
    """Flags that set limits of the gate, by way of a spec."""
    spec = tmp_path / "gate.yaml"
    spec.write_text(json.dumps({"gate": limits}))
    return ["--spec", spec]


def test_a_model_that_passes_is_published(trained: Trained, lrf: Lrf, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = lrf(*compress(trained, out, *QUICK, *gate(tmp_path, max_accuracy_drop=50)))
    assert ended.code == 0, ended.err
    assert {path.name for path in out.iterdir()} >= ALWAYS | {"release", "candidate"}
    assert "passed: published" in ended.out
    assert "fewer_parameters" in ended.out
    verdict = json.loads((out / "verdict.json").read_text())
    candidate = load_model(out / "candidate")
    assert verdict["candidate_digest"] == model_digest(candidate)
    (published,) = (out / "release").rglob("model.keras")
    assert_answers_without_lrf(published, candidate, trained)
    stages = [entry["artifact"] for entry in json.loads((out / "lineage.json").read_text())]
    assert stages == [
        "Analysis",
        "DesignSpace",
        "Plan",
        "FinetuneRecord",
        "Verdict",
        "Release",
    ]


def assert_answers_without_lrf(published: Path, candidate: keras.Model, trained: Trained) -> None:
    """In a fresh process that cannot import lrf."""
    samples, _ = trained.data.test.sample(8, 0).arrays()
    np.save(published.parent / "samples.npy", samples)
    program = (
        "import sys; sys.modules['lrf_core'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "np.save(sys.argv[3], model.predict_on_batch(np.load(sys.argv[2])))\n"
    )
    files = [str(published.parent / name) for name in ("samples.npy", "answers.npy")]
    subprocess.run(
        [sys.executable, "-c", program, str(published), *files],
        check=True,
        capture_output=True,
        cwd=published.parent,
        timeout=120,
    )
    np.testing.assert_allclose(np.load(files[1]), candidate.predict_on_batch(samples), atol=1e-5)


def test_a_model_that_fails_is_published_by_nothing_but_a_persons_decision(
    trained: Trained, lrf: Lrf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    flags = compress(trained, out, *QUICK)
    # As measured: 256 samples do not bound a drop of 1 point, and one check is to fail.
    limits = {"min_params_reduction": 0.95, "confidence": None}
    ended = lrf(*flags, *gate(tmp_path, **limits))
    assert ended.code == 3
    assert {path.name for path in out.iterdir()} >= ALWAYS | {"candidate"}
    assert not list((out / "release").rglob("*"))
    assert "not passed: params_reduction" in ended.out.replace("\n", " ")
    judged = (out / "verdict.json").read_bytes()
    assert not json.loads(judged)["passed"]

    assert lrf("publish", "--out", out).code == 3
    nameless = lrf("publish", "--out", out, "--override-by", "A. Miller")
    assert nameless.code == 2
    assert "--override-reason" in nameless.error
    decision = ["--override-by", "A. Miller", "--override-reason", "big enough"]
    ended = lrf("publish", "--out", out, *decision, "--override-checks", "agreement")
    assert ended.code == 2
    assert "failed: params_reduction" in ended.error
    assert not list(tmp_path.rglob("override.json"))
    assert not list((out / "release").rglob("*"))

    ended = lrf("publish", "--out", out, *decision, "--name", "by-hand")
    assert ended.code == 0, ended.err
    assert "NOT PASSED" in ended.out
    assert "overridden by A. Miller: big enough" in ended.out
    assert "published all the same, by decision of A. Miller" in caplog.text
    (manifest,) = (out / "release/by-hand").rglob("manifest.json")
    assert json.loads(manifest.read_text())["override"]["reason"] == "big enough"
    assert "Overridden by A. Miller" in manifest.with_name("report.html").read_text()
    assert manifest.with_name("override.json").read_bytes() == (out / "override.json").read_bytes()
    stages = [entry["artifact"] for entry in json.loads((out / "lineage.json").read_text())]
    assert stages[-2:] == ["Verdict", "Override"]
    assert (out / "verdict.json").read_bytes() == judged

    # The same through the spec, for this model alone.
    candidate = json.loads(judged)["candidate_digest"]
    override = {"by": "B. Smith", "reason": "as above", "checks": ["params_reduction"]}
    spec = tmp_path / "override.yaml"
    for model, code in (("0" * 12, 3), (candidate, 0)):
        publish = {"name": "by-spec", "override": {**override, "model": model}}
        spec.write_text(json.dumps({"gate": limits, "publish": publish}))
        ended = lrf(*flags, "--spec", spec)
        assert ended.code == code, ended.err
        assert bool(list(out.glob("release/by-spec"))) is (code == 0)
        assert (out / "override.json").exists() is (code == 0)
    assert "overridden by B. Smith: as above" in ended.out


def test_json_for_machines(trained: Trained, lrf: Lrf, tmp_path: Path) -> None:
    limits = gate(tmp_path, max_accuracy_drop=50)
    by_drop = [*QUICK[:4], "--max-accuracy-drop", 4, "--plans", 1]
    ended = lrf(*compress(trained, tmp_path / "out", *by_drop, "--json", *limits))
    result = json.loads(ended.out)
    assert result["passed"]
    assert result["release"]["model_digest"] == result["verdict"]["candidate_digest"]
    plan, judged = result["plan"], result["verdict"]
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert [entry for entry in lineage if "prediction" in entry] == [lineage[4]]
    assert lineage[4]["artifact"] == "Verdict"
    assert lineage[4]["prediction"] == {
        "predicted_drop_before_finetuning": plan["predicted_drop"],
        "measured_drop_before_finetuning": plan["calibration"]["measured_drop"],
        "standard_error": plan["calibration"]["standard_error"],
        "expected_drop": pytest.approx(plan["predicted_drop"] / 4),
        "measured_drop": judged["accuracy_drop"],
    }
    assert plan["calibration"]["points"]
    assert "came out: " in (tmp_path / "out" / "report.html").read_text()


def test_a_run_that_was_cut_off_goes_on(
    trained: Trained, lrf: Lrf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = compress(trained, tmp_path / "out", *QUICK, *gate(tmp_path, max_accuracy_drop=50))
    outputs = Outputs(tmp_path / "out")

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workflow.stages, "finetune", cut)
        ended = lrf(*flags)
    assert ended.code == 130
    assert "run the same command again" in ended.error
    made = outputs.design_space.stat().st_mtime_ns
    assert lrf(*flags).code == 0
    assert outputs.design_space.stat().st_mtime_ns == made
    whole = outputs.plan.stat().st_mtime_ns
    outputs.candidate.write_bytes(b"damaged")
    assert lrf(*flags).code == 0
    assert outputs.plan.stat().st_mtime_ns == whole
    assert load_model(outputs.candidate)


def test_stages_one_by_one_are_the_whole_way(trained: Trained, lrf: Lrf, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    settings = {
        "model": str(trained.model_file),
        "data": str(trained.data_file),
        "out": str(tmp_path / "out"),
        "goal": {"params_reduction": 0.3},
        "explore": {"samples": 64},
        "finetune": {"epochs": 1},
        "gate": {"max_accuracy_drop": 50},
    }
    spec.write_text(json.dumps(settings))
    for stage in ("analyze", "explore", "decompose", "finetune", "validate"):
        ended = lrf(stage, "--spec", spec)
        assert ended.code == 0, ended.err
        assert "written to" in ended.out
    ended = lrf("publish", "--out", tmp_path / "out", "--name", "by-hand")
    assert ended.code == 0, ended.err
    assert list((tmp_path / "out/release/by-hand").rglob("manifest.json"))


def test_publishing_to_s3(trained: Trained, lrf: Lrf, tmp_path: Path, s3_settings: Seaweed) -> None:
    store = f"s3://{s3_settings.bucket}/models"
    limits = gate(tmp_path, max_accuracy_drop=50)
    ended = lrf(*compress(trained, tmp_path / "out", *QUICK, "--to", store, *limits))
    assert ended.code == 0, ended.err
    assert store in ended.out
    assert not (tmp_path / "out" / "release").exists()


class Subclassed(keras.Model):
    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.dense = keras.layers.Dense(4)

    def call(self, inputs: object) -> object:
        return self.dense(keras.ops.mean(inputs, axis=(1, 2)))


@pytest.fixture
def bad(trained: Trained, tmp_path: Path) -> dict[str, Path]:
    """Files that cannot be used."""
    model = load_model(trained.model_file)
    model.get_layer("answer").bias.assign([np.nan, 0, 0, 0])
    model.save(tmp_path / "nan.keras")
    keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Lambda(lambda x: x)]).save(
        tmp_path / "lambda.keras"
    )
    subclassed = Subclassed()
    subclassed(np.zeros((1, 16, 16, 3)))
    subclassed.save(tmp_path / "subclassed.keras")
    (tmp_path / "text.keras").write_text("hello")
    images = np.zeros((40, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "shape.npz", x=images, y=np.arange(40) % 4)
    images = np.zeros((40, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "classes.npz", x=images, y=np.arange(40) % 9)
    np.savez(tmp_path / "few.npz", x=images[:4], y=np.arange(4) % 2)
    (tmp_path / "file").write_text("in the way")
    return {path.stem: path for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["{gone}/m.keras", "--data", "{data}"], "no model at"),
        (["{text}", "--data", "{data}"], "text.keras is no Keras model file"),
        (["{lambda}", "--data", "{data}"], "Lambda layer"),
        (["{nan}", "--data", "{data}"], "holds NaN"),
        (["{subclassed}", "--data", "{data}"], "custom or subclassed"),
        (["{model}", "--data", "{gone}.npz"], "gone.npz"),
        (["{model}", "--data", "{shape}"], "(40, 8, 8, 3)"),
        (["{model}", "--data", "{classes}"], "label"),
        (["{model}", "--data", "{few}"], "few"),
        (["{model}"], "--data is missing"),
        (["{model}", "--data", "{data}", "--set", "explore.samples=100000"], "explore.samples"),
        (["{model}", "--data", "{data}", "--params-reduction", "0.999"], "cannot be reached"),
        (
            ["{model}", "--data", "{data}", "--set", "explore.methods=[tuker]"],
            "did you mean 'tucker'",
        ),
        (["{model}", "--data", "{data}", "--to", "{file}/store"], "file/store"),
        (["{model}", "--data", "{data}", "--to", "ftp://host/x"], "ftp"),
        (["{model}", "--data", "{data}", "--out", "{file}/out"], "file/out"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    flags: list[str], message: str, bad: dict[str, Path], trained: Trained, lrf: Lrf, tmp_path: Path
) -> None:
    paths = {name: str(path) for name, path in bad.items()}
    paths |= {"model": str(trained.model_file), "data": str(trained.data_file)}
    paths |= {"gone": str(tmp_path / "gone")}
    given = [flag.format(**paths) for flag in flags]
    out = [] if "--out" in given else ["--out", tmp_path / "out"]
    samples = [] if "explore.samples=100000" in given else ["--set", "explore.samples=32"]
    ended = lrf("compress", *given, *out, *samples)
    assert ended.code == 2, ended.err
    assert message in ended.error
    assert not list((tmp_path / "out").rglob("*.keras"))
    assert not list(tmp_path.rglob(".writing-*"))
    assert not (tmp_path / "out" / "release").exists()


def test_a_store_that_is_down_is_said_before_the_work(
    trained: Trained,
    lrf: Lrf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_s3_settings: None,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-words")
    ended = lrf(*compress(trained, tmp_path / "out", "--to", "s3://models/x"))
    assert ended.code == 1
    assert "127.0.0.1:9" in ended.error
    assert "very-secret-words" not in ended.err + ended.out
    assert not (tmp_path / "out").exists()


def test_wrong_keys_are_said_before_the_work(
    trained: Trained,
    lrf: Lrf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3_settings: Seaweed,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-words")
    store = f"s3://{s3_settings.bucket}/x"
    ended = lrf(*compress(trained, tmp_path / "out", "--to", store))
    assert ended.code == 2
    assert "not-the-secret-words" not in ended.err + ended.out
    assert ended.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", ["compress", "analyze", "explore", "decompose", "finetune", "validate", "publish"]
)
def test_help_has_examples(command: str, lrf: Lrf) -> None:
    ended = lrf(command, "--help")
    assert ended.code == 0
    assert f"lrf {command}" in ended.out
    assert "Example" in ended.out
