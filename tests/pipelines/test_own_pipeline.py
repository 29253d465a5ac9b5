"""lrf as a step of somebody's own pipeline: artifacts in and out, and branches by the gate."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import components, dsl, local
from tiny import Trained

import lrf_core as lrf
from components.compress_model import compress_model
from components.generate import folder_of
from lrf_core.models.load import load_model, model_digest
from lrf_core.releases import list_releases
from lrf_core.storage import open_store
from pipelines.compress import compress_steps

SPEC = json.dumps(
    {
        "explore": {"samples": 64, "ranks_per_mode": 4},
        "gate": {"confidence": None, "latency_repeats": 3},
    }
)
GOAL = {"params_reduction": 0.3, "max_accuracy_drop": 60.0, "epochs": 1}


@dsl.component(base_image="unused", install_kfp_package=False)
def train(
    from_model: str,
    from_data: str,
    model: dsl.Output[dsl.Model],
    data: dsl.Output[dsl.Dataset],
) -> None:
    """Stands for training; artifacts have no suffix."""
    import shutil

    shutil.copy(from_model, model.path)
    shutil.copy(from_data, data.path)


@dsl.component(base_image="unused", install_kfp_package=False)
def deploy(release: dsl.Input[dsl.Model], marker: str) -> None:
    """Answers as a model server does."""
    from pathlib import Path

    import tensorflow as tf

    served = tf.saved_model.load(f"{release.path}/1").signatures["serving_default"]
    Path(marker).write_text(f"{release.metadata['name']} {len(served.structured_outputs)}")


@pytest.mark.filterwarnings("ignore")  # kfp.local warns of images that it does not use
@pytest.mark.parametrize("passes", [True, False])
def test_a_pipeline_deploys_what_passes_and_nothing_else(
    passes: bool, trained: Trained, tmp_path: Path
) -> None:
    spec = json.loads(SPEC)
    spec["gate"]["min_params_reduction"] = 0.0 if passes else 0.99
    spec["explore"]["methods"] = ["svd", "tucker"]
    # As somebody would who has the YAML alone.
    compress = components.load_component_from_file(
        str(folder_of("compress_model") / "component.yaml")
    )
    store = (tmp_path / "store").as_uri()

    @dsl.pipeline(name="own")
    def own() -> None:
        made = train(from_model=str(trained.model_file), from_data=str(trained.data_file))
        compressed = compress(
            model=made.outputs["model"],
            data=made.outputs["data"],
            store=store,
            release_name="good",
            spec=json.dumps(spec),
            **{**GOAL, "epochs": 0},
        )
        with dsl.If(compressed.outputs["Output"] == True):  # noqa: E712 - a condition
            deploy(release=compressed.outputs["release"], marker=str(tmp_path / "deployed"))

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    own()

    released = open_store(store)
    if not passes:
        assert not (tmp_path / "deployed").exists()
        assert list(released.folders()) == []
        return
    assert (tmp_path / "deployed").read_text() == "good 1"
    (line,) = list_releases(released, "good")
    assert line.listing.summary.params_after < 0.7 * line.listing.summary.params_before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_steps_in_ones_own_pipeline_make_the_candidate_of_one_task(
    trained: Trained, tmp_path: Path
) -> None:
    store = (tmp_path / "store").as_uri()
    spec = json.loads(SPEC)
    spec |= {
        "goal": {"params_reduction": 0.3, "max_accuracy_drop": 60.0},
        "finetune": {"epochs": 1},
        "publish": {"to": store, "name": "steps"},
    }

    @dsl.component(base_image="unused", install_kfp_package=False)
    def deploy_steps(release: dsl.Input[dsl.Artifact], marker: str) -> None:
        from pathlib import Path

        Path(marker).write_text(release.metadata["location"])

    @dsl.pipeline(name="own")
    def own() -> None:
        made = train(from_model=str(trained.model_file), from_data=str(trained.data_file))
        inputs = {"model": made.outputs["model"], "data": made.outputs["data"]}
        steps = compress_steps(json.dumps(spec), **inputs)
        with dsl.If(steps.passed == True):  # noqa: E712 - a condition
            released = steps.publish()
            deploy_steps(release=released.outputs["release"], marker=str(tmp_path / "deployed"))
        compress_model(**inputs, store=store, release_name="task", spec=SPEC, **GOAL)

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    own()

    released = open_store(store)
    (by_steps,), (by_task,) = (list_releases(released, name) for name in ("steps", "task"))
    assert by_steps.listing.model_digest == by_task.listing.model_digest
    assert (tmp_path / "deployed").read_text() == released.url(f"steps/{by_steps.version}")


@pytest.fixture
def run(tmp_path: Path, trained: Trained) -> Callable[..., tuple[bool, dict[str, Any]]]:
    """Runs the component in this process, with artifacts of these files."""

    def run(
        model: Path = trained.model_file, data: Path = trained.data_file, **settings: Any
    ) -> tuple[bool, dict[str, Any]]:
        kinds = {
            "model": dsl.Model,
            "data": dsl.Dataset,
            "candidate": dsl.Model,
            "release": dsl.Model,
            "design_space": dsl.Dataset,
            "report": dsl.HTML,
            "metrics": dsl.Metrics,
            "confusion": dsl.ClassificationMetrics,
            "analysis": dsl.Artifact,
            "plan": dsl.Artifact,
            "verdict": dsl.Artifact,
        }
        made = {name: kind(name=name, uri=str(tmp_path / name)) for name, kind in kinds.items()}
        for name, source in (("model", model), ("data", data)):
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, made[name].path)
        given = {"spec": SPEC, "store": (tmp_path / "store").as_uri(), **GOAL, **settings}
        return compress_model.python_func(**made, **given), made

    return run


def test_one_task_makes_the_candidate_that_a_whole_run_makes(
    run: Callable[..., Any], trained: Trained, tmp_path: Path
) -> None:
    passed, made = run()
    settings = {
        **json.loads(SPEC),
        "model": str(trained.model_file),
        "data": str(trained.data_file),
        "out": str(tmp_path / "whole"),
        "goal": {"params_reduction": 0.3, "max_accuracy_drop": 60.0},
        "finetune": {"epochs": 1},
    }
    result = lrf.run_spec(lrf.Spec.model_validate(settings))

    assert passed
    assert result.verdict.candidate_digest == made["candidate"].metadata["digest"]
    assert result.verdict.candidate_digest == model_digest(load_model(made["candidate"].path))
    release = made["release"]
    assert release.metadata["params_after"] == result.plan.after.params
    assert release.metadata["location"].startswith((tmp_path / "store").as_uri())
    assert (Path(release.path) / "1" / "saved_model.pb").is_file()
    assert lrf.Verdict.load(made["verdict"].path).passed
    assert "<html" in Path(made["report"].path).read_text()[:200]


def _with_lambda(folder: Path) -> Path:
    import keras

    layers = [keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Lambda(abs)]
    keras.Sequential([*layers, keras.layers.Dense(4)]).save(folder / "lambda.keras")
    return folder / "lambda.keras"


def _empty(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def _text(folder: Path) -> Path:
    (folder / "text").write_text("no data")
    return folder / "text"


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"model": _empty}, "no model at the input 'model'"),
        ({"model": _with_lambda}, "the input 'model'.*Lambda"),
        ({"data": _text}, "the input 'data' is not a kind of data that is known"),
        ({"params_reduction": 1.5}, "goal.params_reduction"),
        ({"spec": "model: other.keras"}, "the spec names the model 'other.keras'.*leave 'model'"),
        ({"spec": "goal: ["}, "the spec is not valid YAML"),
        ({"spec": "goals: {}"}, "goals.*did you mean.*goal"),
        ({"store": "ftp://host/dir"}, "unknown kind"),
        ({"methods": ["tuker"]}, "unknown method 'tuker'"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    given: dict[str, Any],
    problem: str,
    run: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger("lrf").setLevel(logging.INFO)
    made = {name: value(tmp_path) if callable(value) else value for name, value in given.items()}

    with pytest.raises(SystemExit) as ended:
        run(**made)

    (line,) = [line for line in capsys.readouterr().out.splitlines() if "failed" in line]
    assert ended.value.code == 2
    assert line.startswith("[lrf compress] failed, exit code 2: ")
    assert re.search(problem, line), line
    assert str(tmp_path) not in line
