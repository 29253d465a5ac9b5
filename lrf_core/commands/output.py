"""What commands do with results: lock their folder, and print them as text or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lrf_core.errors import EXIT_GATE_REFUSED
from lrf_core.files.folder_lock import lock_folder

if TYPE_CHECKING:
    from lrf_core.artifacts import Artifact, Verdict
    from lrf_core.run.outputs import Outputs
    from lrf_core.spec import Spec

# Released when the command ends; `app` closes it.
locks = ExitStack()


def lock_outputs(spec: Spec, part: str = "") -> Outputs:
    """The folder of a command's spec, locked for other runs until the command ends.

    Args:
        part: of the folder, if other commands may write other parts at the same time.
    """
    from lrf_core.run.outputs import Outputs

    outputs = Outputs(Path(spec.out))
    locks.enter_context(lock_folder(outputs.folder, part))
    return outputs


def print_artifact(artifact: Any, as_json: bool, table: Any, place: str | Path) -> None:
    """Print an artifact as JSON, or its table and where it lies."""
    from lrf_core.run.summary import print_result

    if as_json:
        print_json(artifact.model_dump(mode="json"))
    else:
        print_result(table, place)


def print_plans(
    artifacts: Sequence[Artifact], as_json: bool, table: Any, place: Path, **more: Any
) -> None:
    """Print one artifact for each plan: as JSON a single one by itself, several under "plans".

    Args:
        more: what the JSON of several says beside them.
    """
    if as_json:
        content = [artifact.model_dump(mode="json") for artifact in artifacts]
        print_json(content[0] if len(content) == 1 else {**more, "plans": content})
    else:
        print_artifact(artifacts[0], False, table, place)


def print_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=2)
    sys.stdout.write("\n")


def exit_by(verdict: Verdict) -> None:
    """End with exit code 3 unless the verdict is a pass."""
    if not verdict.passed:
        raise typer.Exit(EXIT_GATE_REFUSED)
