"""What every benchmark does with its rows: print one table, write one JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.table

RESULTS = Path("benchmarks/results")

# Column name to value; a number, text, or None for what does not apply.
Row = dict[str, Any]


def machine() -> str:
    """What the numbers were measured on."""
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def show(
    title: str,
    rows: Sequence[Row],
    facts: Row,
    is_marked: Callable[[Row], bool] = lambda row: False,
) -> None:
    """Print the rows as one table, and the facts below it.

    Args:
        rows: all with the columns of the first.
        is_marked: rows to set off.
    """
    table = rich.table.Table(title=title)
    for column, value in rows[0].items():
        table.add_column(column, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        style = "yellow" if is_marked(row) else None
        table.add_row(*(_shown(value) for value in row.values()), style=style)
    console = rich.console.Console(width=160)
    console.print(table)
    console.print(facts)


def write(path: Path, rows: Sequence[Row], facts: Row) -> None:
    """Write rows and facts as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"facts": facts, "rows": list(rows)}, indent=2) + "\n")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
