"""What commands share: flags to a spec, a spec to its inputs, and results to people or machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lrf_core.artifacts import Artifact, Verdict
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import EXIT_GATE_REFUSED, SpecError
from lrf_core.files.folder_lock import alone_in
from lrf_core.run.outputs import Outputs
from lrf_core.spec import Spec, make_spec, read_spec

if TYPE_CHECKING:
    import keras

    from lrf_core.data import Data


# What a command holds until it ends; `cli` closes it.
held = ExitStack()


def asked_for(file: Path | None, settings: dict[str, Any]) -> tuple[Spec, Outputs]:
    """The spec of a command and its folder. Raises SpecError naming the flags that are missing."""
    written = read_spec(file) if file else {}
    for key, flag in (("model", "MODEL"), ("data", "--data")):
        if not written.get(key) and not settings.get(key):
            raise SpecError(f"{flag} is missing; give it, or --spec with a '{key}:' in it")
    spec = make_spec(written, settings)
    return spec, Outputs(Path(spec.out))


def hold(outputs: Outputs, part: str = "") -> None:
    """Keep other runs out of the folder until the command ends; see `folder_lock.alone_in`."""
    held.enter_context(alone_in(outputs.folder, part))


def inputs_of(spec: Spec) -> tuple[keras.Model, Data]:
    import_tensorflow_quietly()
    from lrf_core.data import open_data
    from lrf_core.models.load import load_model

    model = load_model(spec.model, spec.weights)
    return model, open_data(spec.data, model, spec.seed)


def show(artifact: Any, as_json: bool, table: Any, where: str | Path) -> None:
    from lrf_core.run.summary import print_for_people

    if as_json:
        print_json(artifact.model_dump(mode="json"))
    else:
        print_for_people(table, where)


def show_plans(
    artifacts: Sequence[Artifact], as_json: bool, table: Any, where: Path, **about: Any
) -> None:
    """One artifact for each plan: as JSON a single one by itself, several under "plans".

    Args:
        about: what else there is to say of several.
    """
    if as_json:
        content = [artifact.model_dump(mode="json") for artifact in artifacts]
        print_json(content[0] if len(content) == 1 else {**about, "plans": content})
    else:
        show(artifacts[0], False, table, where)


def print_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=2)
    sys.stdout.write("\n")


def exit_by(verdict: Verdict) -> None:
    if not verdict.passed:
        raise typer.Exit(EXIT_GATE_REFUSED)
