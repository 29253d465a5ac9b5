"""The spec refuses what it does not know, and says what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrf_core.errors import SpecError
from lrf_core.spec import Goal, load_spec, make_spec

MINIMAL = {"model": "m.keras", "data": "d.npz"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**MINIMAL, "fintune": {}}, "unknown setting 'fintune' (did you mean 'finetune'?)"),
        (
            {**MINIMAL, "goal": {"param_reduction": 0.5}},
            "unknown setting 'goal.param_reduction' (did you mean 'params_reduction'?)",
        ),
        ({**MINIMAL, "goal": {"zzz": 1}}, "unknown setting 'goal.zzz' (known here: max_accuracy"),
        ({"data": "d.npz"}, "setting 'model' is required"),
        ({**MINIMAL, "goal": {"params_reduction": 1.0}}, "less than 1, got 1.0"),
        ({**MINIMAL, "finetune": {"epochs": "many"}}, "finetune.epochs"),
        ({**MINIMAL, "decompose": {"policy": "greedy"}}, "'knapsack', 'threshold' or 'vbmf'"),
        ({**MINIMAL, "decompose": {"minimize": "size"}}, "'error', 'sensitivity', 'params'"),
        ({**MINIMAL, "decompose": {"plans": 0}}, "decompose.plans"),
        ({**MINIMAL, "decompose": {"plans": 17}}, "less than or equal to 16"),
        (
            {**MINIMAL, "explore": {"memory_gib": float("inf")}},
            "should be a finite number, got inf",
        ),
        ({**MINIMAL, "finetune": {"learning_rate": float("nan")}}, "finetune.learning_rate"),
        ({**MINIMAL, "goal": {"max_params": 0}}, "greater than or equal to 1"),
        ({**MINIMAL, "goal": {"max_latency_ms": 0}}, "greater than 0"),
        ({**MINIMAL, "goal": {"latency_reduction": -0.1}}, "greater than or equal to 0"),
        ({**MINIMAL, "explore": {"samples": 2}}, "greater than or equal to 8"),
    ],
)
def test_bad_settings_are_one_clear_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flags_lie_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("model: a\ndata: b\ngoal: {params_reduction: 0.5}\nfinetune: {epochs: 1}\n")
    overrides = {"model": "c", "data": None, "goal": {"macs_reduction": 0.2}, "finetune": {}}
    spec = load_spec(file, overrides)
    assert (spec.model, spec.data, spec.finetune.epochs) == ("c", "b", 1)
    assert spec.goal == Goal(params_reduction=0.5, macs_reduction=0.2)


@pytest.mark.parametrize(
    ("content", "message"),
    [("model: [", "not valid YAML"), ("- a\n- b", "must be a mapping"), ("", "must be a mapping")],
)
def test_files_that_are_no_spec(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "spec.yaml").write_text(content)
    with pytest.raises(SpecError, match=message):
        load_spec(tmp_path / "spec.yaml")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the spec"):
        load_spec(tmp_path / "gone.yaml")


def test_gate_takes_over_the_goal() -> None:
    spec = make_spec({**MINIMAL, "goal": {"max_accuracy_drop": 0.5, "params_reduction": 0.6}})
    gate = spec.effective_gate()
    assert (gate.max_accuracy_drop, gate.min_params_reduction) == (0.5, 0.6)
    sized = make_spec({**MINIMAL, "goal": {"max_weight_bytes": 1000}}).effective_gate()
    assert sized.max_weight_bytes == 1000
    stricter = make_spec(
        {**MINIMAL, "goal": {"max_accuracy_drop": 0.5}, "gate": {"max_accuracy_drop": 0.1}}
    )
    assert stricter.effective_gate().max_accuracy_drop == 0.1


def test_there_is_always_an_accuracy_limit() -> None:
    assert make_spec(MINIMAL).effective_goal() == Goal(max_accuracy_drop=1.0)
    only_size = make_spec({**MINIMAL, "goal": {"params_reduction": 0.5}})
    assert only_size.effective_gate().max_accuracy_drop == 1.0


def test_a_plan_is_made_for_what_follows() -> None:
    spec = make_spec({**MINIMAL, "finetune": {"epochs": 0}})
    assert spec.effective_decompose().expected_recovery == 0.0
    assert spec.effective_decompose().minimize == "sensitivity"
    trained = make_spec(MINIMAL).effective_decompose()
    assert trained.expected_recovery > 0
    assert trained.minimize == "error"
    for limit in ({"max_predicted_loss": 0.1}, {"similarity": 0.9}):
        assert make_spec({**MINIMAL, "goal": limit}).effective_decompose().minimize == "params"
        both = make_spec({**MINIMAL, "goal": {**limit, "max_macs": 9}})
        assert both.effective_decompose().minimize == "error"
    asked = make_spec({**MINIMAL, "decompose": {"minimize": "sensitivity"}})
    assert asked.effective_decompose().minimize == "sensitivity"


@pytest.mark.parametrize(
    ("goal", "decompose", "plans"),
    [
        ({}, {}, 3),
        ({"max_accuracy_drop": 0.5}, {}, 3),
        ({"max_accuracy_drop": 0.5, "max_predicted_loss": 0.1}, {}, 3),
        ({"max_accuracy_drop": 0.5, "max_macs": 9}, {"minimize": "params"}, 3),
        ({"max_accuracy_drop": 0.5, "max_macs": 9}, {}, 1),
        ({"params_reduction": 0.5}, {}, 1),
        ({"similarity": 0.9}, {}, 1),
        ({}, {"policy": "vbmf"}, 1),
        ({}, {"plans": 1}, 1),
        ({"params_reduction": 0.5}, {"plans": 4}, 4),
    ],
)
def test_several_plans_are_made_where_a_predicted_drop_decides(
    goal: dict[str, float], decompose: dict[str, object], plans: int
) -> None:
    spec = make_spec({**MINIMAL, "goal": goal, "decompose": decompose})
    assert spec.effective_decompose().plans == plans


def test_example_specs_are_valid() -> None:
    examples = sorted((Path(__file__).parents[1] / "examples").rglob("*.yaml"))
    assert examples
    for example in examples:
        load_spec(example)


def test_confidence_is_95_percent_unless_null_says_otherwise() -> None:
    assert make_spec(MINIMAL).effective_gate().confidence == 0.95
    spec = make_spec({**MINIMAL, "gate": {"confidence": None}})
    assert spec.effective_gate().confidence is None
    assert make_spec(spec.model_dump(mode="json")) == spec
