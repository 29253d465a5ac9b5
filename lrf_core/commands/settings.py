"""`lrf spec`: every setting, as its model describes it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from lrf_core.commands.flags import JsonOption, setting_keys
from lrf_core.commands.output import print_json
from lrf_core.console.terminal import print_table
from lrf_core.errors import SpecError
from lrf_core.spec import Spec

SectionArgument = Annotated[
    str | None, typer.Argument(help="Start of the names, e.g. goal or explore.memory_gib.")
]


def spec(section: SectionArgument = None, as_json: JsonOption = False) -> None:
    """List all settings of a spec with their defaults; --set and YAML files take them.

    \b
    Examples:
      lrf spec
      lrf spec goal
      lrf spec --json > spec.schema.json    # JSON Schema, for an editor
    """
    if as_json:
        print_json(Spec.model_json_schema())
        return
    found = [
        (key, field)
        for key, field in setting_keys()
        if section is None or key == section or key.startswith(f"{section}.")
    ]
    if not found:
        known = ", ".join(dict.fromkeys(key.partition(".")[0] for key, _ in setting_keys()))
        raise SpecError(f"there is no setting '{section}'; sections and settings: {known}")
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("setting", "default", "description"):
        table.add_column(title, overflow="fold")
    for key, field in found:
        table.add_row(key, _default(field), field.description or "")
    print_table(table)


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True) if not field.is_required() else "-"
    if isinstance(value, tuple | list | dict):
        return ",".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
