"""Each component's body with real inputs, in the order of the pipeline, on one tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl
from sound_verdict import rejudged
from tiny import tiny_arrays, tiny_cnn, tiny_data, train_tiny

from components.analyze import analyze
from components.decompose import decompose
from components.explore import explore
from components.finetune import finetune
from components.merge import merge
from components.publish import publish
from components.validate import validate
from lrf_core.artifacts import (
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Plan,
    Release,
    Verdict,
    Verdicts,
)
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.spec import Spec, make_spec
from lrf_core.storage import open_store


@dataclass(frozen=True)
class Steps:
    """What the components of one run left, by name."""

    spec: Spec
    made: dict[str, dsl.Artifact]
    shards: list[int]
    numbers: list[int]
    passed: bool

    def path(self, name: str) -> Path:
        return Path(self.made[name].path)


def artifact(folder: Path, name: str, kind: type[dsl.Artifact] = dsl.Artifact) -> dsl.Artifact:
    return kind(name=name, uri=str(folder / name), metadata={})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("inputs")
    data = tiny_data()
    save_model(train_tiny(tiny_cnn(), data), folder / "tiny.keras")
    x_train, y_train = data.train.arrays()
    x_test, y_test = data.test.arrays()
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return {
        "model": str(folder / "tiny.keras"),
        "data": str(folder / "data.npz"),
        "goal": {"params_reduction": 0.2},
        "explore": {"samples": 64, "ranks_per_mode": 4},
        "decompose": {"plans": 2},
        "finetune": {"epochs": 1},
        # The plan for the goal keeps nearly 80%, the other about 57%.
        "gate": {"max_accuracy_drop": 60.0, "min_params_reduction": 0.3, "latency_repeats": 3},
        "publish": {"to": (folder / "store").as_uri(), "name": "tiny"},
    }


@pytest.fixture(scope="module")
def steps(settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """The components, one after the other, with two plans."""
    folder = tmp_path_factory.mktemp("steps")
    spec = make_spec(settings)
    text = spec.model_dump_json()
    kinds = {
        "baseline": dsl.Model,
        "design_space": dsl.Dataset,
        "candidate": dsl.Model,
        "report": dsl.HTML,
        "metrics": dsl.Metrics,
        "confusion": dsl.ClassificationMetrics,
    }
    names = ["analysis", "plan", "training", "verdict", "verdicts", "lineage", "release"]
    made = {
        name: artifact(folder, name, kinds.get(name, dsl.Artifact)) for name in (*kinds, *names)
    }

    def some(*wanted: str) -> dict[str, dsl.Artifact]:
        return {name: made[name] for name in wanted}

    shards = analyze.python_func(spec=text, **some("baseline", "analysis"))
    spaces = [artifact(folder, f"space{shard}", dsl.Dataset) for shard in shards]
    for shard, space in zip(shards, spaces, strict=True):
        explore.python_func(
            spec=text, shard=shard, design_space=space, **some("baseline", "analysis")
        )
    numbers = merge.python_func(spec=text, shards=spaces, **some("analysis", "design_space"))
    of_plans: dict[str, list[dsl.Artifact]] = {
        name: [artifact(folder, f"{name}{number}") for number in numbers]
        for name in ("plan", "factorized", "candidate", "training")
    }
    for number in numbers:
        own = {name: each[number] for name, each in of_plans.items()}
        decompose.python_func(
            spec=text,
            number=number,
            plan=own["plan"],
            factorized=own["factorized"],
            **some("baseline", "design_space"),
        )
        finetune.python_func(
            spec=text,
            factorized=own["factorized"],
            candidate=own["candidate"],
            training=own["training"],
            **some("baseline"),
        )
    shown = some("candidate", "plan", "training", "verdict", "report", "lineage")
    known = some("analysis", "design_space")
    passed = validate.python_func(
        spec=text,
        candidates=of_plans["candidate"],
        # Steps side by side end in any order.
        plans=of_plans["plan"][::-1],
        trainings=of_plans["training"][::-1],
        **some("baseline", "verdicts", "metrics", "confusion"),
        **known,
        **shown,
    )
    publish.python_func(spec=text, **known, **shown, **some("release"))
    every = [*spaces, *(each for of_plan in of_plans.values() for each in of_plan)]
    made.update({each.name: each for each in every})
    return Steps(spec, made, shards, numbers, passed)


def test_analyze_fixes_the_model_and_numbers_the_shards(steps: Steps) -> None:
    analysis = Analysis.load(steps.path("analysis"))
    given = load_model(steps.spec.model)
    assert model_digest(load_model(steps.path("baseline"))) == model_digest(given)
    assert analysis.model_digest == model_digest(given)
    assert len(analysis.shards) == 2
    assert steps.shards == [1, 2]


def test_the_shards_are_explored_apart_and_joined_by_merge(steps: Steps) -> None:
    parts = [DesignSpace.load(steps.path(f"space{shard}")) for shard in steps.shards]
    whole = DesignSpace.load(steps.path("design_space"))
    eligible = {layer.name for layer in Analysis.load(steps.path("analysis")).eligible()}
    assert [set(part.layers) for part in parts] == [
        set(shard) for shard in Analysis.load(steps.path("analysis")).shards
    ]
    assert set(whole.layers) == eligible
    assert len(whole.candidates) == sum(len(part.candidates) for part in parts) > 0
    assert steps.numbers == [0, 1]


def test_each_plan_is_built_and_trained_apart(steps: Steps) -> None:
    plans = [Plan.load(steps.path(f"plan{number}")) for number in steps.numbers]
    for number, plan in enumerate(plans):
        record = FinetuneRecord.load(steps.path(f"training{number}"))
        factorized, candidate = (
            load_model(steps.path(f"{name}{number}")) for name in ("factorized", "candidate")
        )
        assert (plan.number, plan.asked) == (number, 2)
        assert model_digest(factorized) == plan.factorized_digest == record.before_digest
        assert model_digest(candidate) == record.after_digest
        assert plan.after.params <= 0.8 * plan.before.params
    assert plans[1].after.params < plans[0].after.params


def test_validate_judges_all_and_hands_on_the_smallest_that_passes(steps: Steps) -> None:
    verdict, judged = Verdict.load(steps.path("verdict")), Verdicts.load(steps.path("verdicts"))
    assert steps.passed is verdict.passed is True
    assert [each.passed for each in judged.verdicts] == [False, True]
    assert judged.verdicts[judged.picked] == verdict
    assert Plan.load(steps.path("plan")) == Plan.load(steps.path("plan1"))
    assert FinetuneRecord.load(steps.path("training")).after_digest == verdict.candidate_digest
    assert model_digest(load_model(steps.path("candidate"))) == verdict.candidate_digest


def test_validate_writes_report_lineage_and_metrics(steps: Steps) -> None:
    verdict = Verdict.load(steps.path("verdict"))
    report = steps.path("report").read_text(encoding="utf-8")
    assert "<html" in report.lower()
    assert "<h2>Plans</h2>" in report
    made = [entry["artifact"] for entry in json.loads(steps.path("lineage").read_bytes())]
    assert made == ["Analysis", "DesignSpace", "Plan", "FinetuneRecord", "Verdict"]
    metrics = steps.made["metrics"].metadata
    assert metrics["candidate_params"] == verdict.candidate.cost.params
    assert metrics["baseline_accuracy"] == verdict.baseline.accuracy
    assert metrics["failed_checks"] == 0
    assert metrics["accuracy_drop_low"] <= metrics["accuracy_drop"] <= metrics["accuracy_drop_high"]
    assert metrics["litert_latency_ratio"] > 0
    assert 0 <= metrics["accuracy_mcnemar_p"] <= 1
    matrix = steps.made["confusion"].metadata["confusionMatrix"]
    assert [kind["displayName"] for kind in matrix["annotationSpecs"]] == ["0", "1", "2", "3"]
    counts = np.array([row["row"] for row in matrix["rows"]])
    right = 100.0 * np.trace(counts) / counts.sum()
    assert right == pytest.approx(verdict.candidate.accuracy)


def test_publish_leaves_a_release_with_all_that_belongs_to_it(steps: Steps, tmp_path: Path) -> None:
    release = Release.load(steps.path("release"))
    store = open_store(str(steps.spec.publish.to))
    for file in release.files:
        store.get_file(f"{release.name}/{release.version}/{file.path}", tmp_path / file.path)
    assert model_digest(load_model(tmp_path / "model.keras")) == release.model_digest
    assert {file.path for file in release.files} == {
        "analysis.json",
        "answers.npz",
        "design_space.parquet",
        "finetune.json",
        "lineage.json",
        "model.keras",
        "model.tflite",
        "plan.json",
        "report.html",
        "saved_model/1/fingerprint.pb",
        "saved_model/1/saved_model.pb",
        "saved_model/1/variables/variables.data-00000-of-00001",
        "saved_model/1/variables/variables.index",
        "sbom.json",
        "verdict.json",
    }
    assert Verdict.load(tmp_path / "verdict.json").digest() == release.verdict_digest


def _too_strict(steps: Steps) -> tuple[Spec, Verdict]:
    """The spec with a limit that the candidate does not meet, and the verdict by it."""
    gate = steps.spec.gate.model_copy(update={"min_params_reduction": 0.999})
    spec = steps.spec.model_copy(update={"gate": gate})
    passed = Verdict.load(steps.path("verdict"))
    settings = {
        **passed.lineage.settings,
        "gate": spec.effective_gate().model_dump(mode="json"),
    }
    lineage = passed.lineage.model_copy(update={"settings": settings})
    candidates = settings["candidates"]
    failed = rejudged(
        passed.model_copy(update={"lineage": lineage}), spec.effective_gate(), candidates
    )
    assert [check.name for check in failed.failed()] == ["params_reduction"]
    return spec, failed


def test_publish_refuses_a_model_that_did_not_pass(
    steps: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict, failed = _too_strict(steps)
    verdict = artifact(tmp_path, "verdict")
    failed.save(verdict.path)
    to = (tmp_path / "store").as_uri()
    spec = strict.model_copy(update={"publish": strict.publish.model_copy(update={"to": to})})
    names = ["candidate", "analysis", "design_space", "plan", "training", "report", "lineage"]
    with pytest.raises(SystemExit) as ended:
        publish.python_func(
            spec=spec.model_dump_json(),
            verdict=verdict,
            release=artifact(tmp_path, "release"),
            **{name: steps.made[name] for name in names},
        )
    assert ended.value.code == 3
    assert not (tmp_path / "store").exists()
    assert "did not pass the gate" in capsys.readouterr().out


def test_publish_obeys_an_override_of_this_candidate_alone(
    steps: Steps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict, failed = _too_strict(steps)
    verdict, release = artifact(tmp_path, "verdict"), artifact(tmp_path, "release")
    failed.save(verdict.path)
    lineage = artifact(tmp_path, "lineage")
    entries = json.loads(Path(steps.made["lineage"].path).read_text())
    [entry] = [each for each in entries if each["artifact"] == "Verdict"]
    entry["settings"] = failed.lineage.model_dump(mode="json")["settings"]
    Path(lineage.path).write_text(json.dumps(entries))
    made = {**steps.made, "lineage": lineage}
    names = ["candidate", "analysis", "design_space", "plan", "training", "report", "lineage"]

    def publish_with(model: str) -> None:
        override = {
            "by": "A. Miller",
            "reason": "served on a GPU",
            "checks": ["params_reduction"],
            "model": model,
        }
        settings = strict.model_dump(mode="json")
        settings["publish"] = {"to": (tmp_path / "store").as_uri(), "override": override}
        publish.python_func(
            spec=json.dumps(settings),
            verdict=verdict,
            release=release,
            **{name: made[name] for name in names},
        )

    with pytest.raises(SystemExit) as ended:
        publish_with("0" * 12)
    assert ended.value.code == 3
    assert "it is not applied" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    publish_with(failed.candidate_digest[:12])
    assert "published all the same, by decision of A. Miller" in capsys.readouterr().out
    published = Release.load(release.path)
    assert published.override is not None
    assert published.override.reason == "served on a GPU"
    assert "override.json" in {file.path for file in published.files}
    assert release.metadata["overridden_by"] == "A. Miller"


def _analyze_with(settings: dict[str, object], folder: Path) -> None:
    analyze.python_func(
        spec=json.dumps(settings),
        baseline=artifact(folder, "baseline", dsl.Model),
        analysis=artifact(folder, "analysis"),
    )


def _other_shape(folder: Path, settings: dict[str, object]) -> dict[str, object]:
    x, y = tiny_arrays(64, (8, 8, 3))
    np.savez(folder / "small.npz", x=x, y=y)
    return {**settings, "data": str(folder / "small.npz")}


def _no_model(folder: Path, settings: dict[str, object]) -> dict[str, object]:
    return {**settings, "model": str(folder / "none.keras")}


def _unknown_setting(folder: Path, settings: dict[str, object]) -> dict[str, object]:
    return {**settings, "modle": "x"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_other_shape, "(64, 8, 8, 3)"),
        (_no_model, "no model at"),
        (_unknown_setting, "did you mean 'model'?"),
    ],
)
def test_bad_input_ends_a_component_with_one_line(
    change: Callable[[Path, dict[str, object]], dict[str, object]],
    told: str,
    settings: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        _analyze_with(change(tmp_path, settings), tmp_path)
    assert ended.value.code == 2
    said = capsys.readouterr()
    failures = [line for line in said.out.splitlines() if "failed" in line]
    assert len(failures) == 1
    assert failures[0].startswith("[lrf analyze] failed, exit code 2: ")
    assert told in failures[0]
    assert "Traceback" not in said.out + said.err
    assert not (tmp_path / "baseline").exists()
