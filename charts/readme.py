"""`python -m charts.readme` writes the chart's README: a table of values.yaml and its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "lrf"

_INTRODUCTION = """\
# Chart lrf

Installs `lrf controller`: newly registered Keras models that ask for it are compressed, judged and
published by pipeline runs that nobody starts. How to install, upgrade and uninstall it, its rights
and its network: [docs/install.md](../../docs/install.md).

```
helm install lrf charts/lrf --namespace team --values my-values.yaml
helm test lrf --namespace team
```

## Values

`values.schema.json` refuses unknown keys, other types, addresses with passwords in them and
variables that sound secret. There is no value for a secret, only for its name, and none that
weakens the pods' security context.
"""


@dataclass(frozen=True)
class Value:
    """A row of the table. `default` is JSON."""

    key: str
    type: str
    default: str
    description: str


def values() -> list[Value]:
    """Every value that a comment in values.yaml stands above.

    Raises:
        KeyError: a value that the schema does not know.
    """
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    root: Any = yaml.compose(text)
    return list(_rows(root, text.splitlines(), schema, schema, ()))


def readme() -> str:
    """The README, Markdown."""
    rows = ["| Value | Type | Default | Description |", "|---|---|---|---|"]
    rows += [f"| `{v.key}` | {v.type} | `{v.default}` | {v.description} |" for v in values()]
    table = "\n".join(rows)
    footer = "Generated from `values.yaml` and its schema by `python -m charts.readme`."
    return f"{_INTRODUCTION}\n{table}\n\n{footer}\n"


def _rows(
    node: yaml.MappingNode,
    lines: list[str],
    schema: dict[str, Any],
    whole: dict[str, Any],
    above: tuple[str, ...],
) -> Iterator[Value]:
    """Mappings whose values have comments of their own are entered, others are one value."""
    for key, value in node.value:
        path, own = (*above, key.value), _resolved(schema["properties"][key.value], whole)
        described = _comment(lines, key.start_mark.line)
        if _has_comments(value, lines):
            yield from _rows(value, lines, own, whole, path)
        elif described:
            default = json.dumps(yaml.safe_load(yaml.serialize(value)))
            yield Value(".".join(path), _type(own), default, described.replace("|", "\\|"))


def _has_comments(node: yaml.Node, lines: list[str]) -> bool:
    is_mapping = isinstance(node, yaml.MappingNode)
    return is_mapping and any(
        _comment(lines, key.start_mark.line) or _has_comments(below, lines)
        for key, below in node.value
    )


def _comment(lines: list[str], line: int) -> str:
    """What stands directly above a line, joined."""
    first = line
    while first and lines[first - 1].lstrip().startswith("# "):
        first -= 1
    return " ".join(text.lstrip()[2:] for text in lines[first:line])


def _resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    resolved: dict[str, Any] = whole["definitions"][reference.removeprefix("#/definitions/")]
    return resolved


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(schema["enum"])
    named = str(schema.get("title") or schema["type"])
    if "minimum" in schema:
        return f"{named}, {schema['minimum']} to {schema['maximum']}"
    return named


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme(), encoding="utf-8")
