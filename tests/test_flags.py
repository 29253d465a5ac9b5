"""Flags of commands come from the spec; nothing heavy is imported before they are checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lrf_core.commands.flags import setting_keys, spec_from_flags, suggest_setting
from lrf_core.errors import SpecError
from lrf_core.spec import Spec

INPUTS = {"model": "m.keras", "data": "d.npz"}
COMMANDS = [
    "compress",
    "analyze",
    "profile",
    "explore",
    "frontier",
    "decompose",
    "finetune",
    "validate",
    "publish",
    "promote",
    "export",
    "spec",
    "controller",
    "releases",
]
# Ends with 2 each: an unknown flag, a value of the wrong type, a setting that does not exist.
WRONG = {
    "compress": ["m.keras", "--data", "d.npz", "--set", "goal.max_parms=1"],
    "analyze": ["m.keras", "--data", "d.npz", "--set", "explore.samples=few"],
    "decompose": ["m.keras", "--data", "d.npz", "--plans", "many"],
    "finetune": ["--data", "d.npz"],
    "validate": ["m.keras", "--unknown"],
    "publish": ["--set", "publish"],
}


def test_assignments_override_flags_and_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("model: a.keras\ndata: d.npz\nseed: 1\nexplore: {samples: 8, shards: 3}\n")
    spec = spec_from_flags(
        file,
        {"model": "b.keras", "explore.samples": 16, "goal.max_macs": None},
        ["explore.samples=32", "gate.confidence=null", "explore.methods=[svd, qr]"],
    )
    assert (spec.model, spec.seed, spec.explore.samples, spec.explore.shards) == (
        "b.keras",
        1,
        32,
        3,
    )
    assert spec.gate.confidence is None
    assert spec.explore.methods == ("svd", "qr")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("goal.max_parms=1", r"unknown setting 'goal\.max_parms' \(did you mean 'max_params'\?\)"),
        ("goal.max_params=x", r"setting 'goal\.max_params': .* got 'x'"),
        ("goal=1", r"setting 'goal'"),
        ("goal.max_params.x=1", r"setting 'goal\.max_params'"),
        ("goal.max_params", r"give KEY=VALUE"),
        ("explore.methods=[svd", r"--set explore\.methods=\[svd: the value is not valid YAML"),
        ("=1", r"give KEY=VALUE"),
    ],
)
def test_a_wrong_assignment_is_named(assignment: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        spec_from_flags(None, INPUTS, [assignment])
    assert "\n" not in str(caught.value)


def test_a_missing_input_is_named_by_its_flag() -> None:
    with pytest.raises(SpecError, match="MODEL is missing"):
        spec_from_flags(None, {"data": "d.npz"})
    with pytest.raises(SpecError, match="--data is missing; give it, or --spec with 'data:' in it"):
        spec_from_flags(None, {"model": "m.keras"})


def test_every_setting_has_a_description_and_can_be_assigned() -> None:
    settings = dict(setting_keys())
    assert len(settings) > 80
    assert not [key for key, field in settings.items() if not field.description]
    values: Any = Spec(**INPUTS).model_dump(mode="json")
    for key, field in settings.items():
        value = values
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None and not field.is_required():
            assignment = f"{key}={json.dumps(value)}"
            assert spec_from_flags(None, INPUTS, [assignment]) == Spec(**INPUTS), assignment


def test_a_setting_without_a_flag_is_suggested() -> None:
    assert suggest_setting("--max-params") == (
        "it is a setting without a flag: use --set goal.max_params=VALUE"
    )
    assert suggest_setting("--nothing-like-it") is None


PROGRAM = """
import sys
from lrf_core.commands import app
sys.argv = ["lrf", *sys.argv[1:]]
try:
    app.main()
except SystemExit as ended:
    heavy = {"tensorflow", "keras", "pyarrow", "scipy"} & set(sys.modules)
    print(ended.code or 0, *sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        *(([command, "--help"], 0) for command in COMMANDS),
        *(([command, *wrong], 2) for command, wrong in WRONG.items()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported_for_help_or_wrong_flags(arguments: list[str], code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True
    )
    assert ended.stderr.splitlines()[-1] == str(code), ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_cache_leaves_neither_scores_nor_checkpoints() -> None:
    spec = spec_from_flags(None, {**INPUTS, "explore.cache": False}).in_own_folder()
    assert (spec.explore.cache, spec.finetune.checkpoint) == (False, False)
    spec = spec_from_flags(None, INPUTS).in_own_folder()
    assert (spec.explore.cache, spec.finetune.checkpoint) == ("out/.cache", "out/.cache")
