"""`python -m components.generate` writes README and YAML of every component from its contract."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import docstring_parser
import yaml
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

# Tasks of the pipeline, in its order.
STAGES = ("analyze", "explore", "merge", "decompose", "finetune", "validate", "publish")

COMPONENTS = ("compress_model", *STAGES)

_PARAMETERS = {
    "Integer": "int",
    "Float": "float",
    "String": "str",
    "Boolean": "bool",
    "List": "list",
}
_EXAMPLES = {
    "compress_model": """compressed = compress_model(
    model=trained.outputs["model"],
    data=prepared.outputs["data"],
    store="s3://models/vision",
    params_reduction=0.8,
)
with dsl.If(compressed.outputs["Output"] == True):
    deploy(release=compressed.outputs["release"])""",
    "analyze": """analyzed = analyze(spec=spec)
baseline, analysis = analyzed.outputs["baseline"], analyzed.outputs["analysis"]""",
    "explore": """with dsl.ParallelFor(analyzed.outputs["Output"]) as shard:
    explored = explore(spec=spec, shard=shard, baseline=baseline, analysis=analysis)""",
    "merge": """shards = dsl.Collected(explored.outputs["design_space"])
merged = merge(spec=spec, analysis=analysis, shards=shards)
design_space = merged.outputs["design_space"]""",
    "decompose": """with dsl.ParallelFor(merged.outputs["Output"]) as number:
    decomposed = decompose(
        spec=spec,
        number=number,
        baseline=baseline,
        design_space=design_space,
    )""",
    "finetune": """with dsl.ParallelFor(merged.outputs["Output"]) as number:
    ...
    factorized = decomposed.outputs["factorized"]
    trained = finetune(spec=spec, baseline=baseline, factorized=factorized)""",
    "validate": """judged = validate(
    spec=spec,
    baseline=baseline,
    candidates=dsl.Collected(trained.outputs["candidate"]),
    analysis=analysis,
    design_space=design_space,
    plans=dsl.Collected(decomposed.outputs["plan"]),
    trainings=dsl.Collected(trained.outputs["training"]),
)""",
    "publish": """with dsl.If(judged.outputs["Output"] == True):
    publish(
        spec=spec,
        candidate=judged.outputs["candidate"],
        analysis=analysis,
        design_space=design_space,
        plan=judged.outputs["plan"],
        training=judged.outputs["training"],
        verdict=judged.outputs["verdict"],
        report=judged.outputs["report"],
        lineage=judged.outputs["lineage"],
    )""",
}


def folder_of(stage: str) -> Path:
    return Path(__file__).parent / stage


def readme(stage: str) -> str:
    """The README of a component, Markdown."""
    component = component_named(stage)
    text = docstring_parser.parse(component.python_func.__doc__)
    said = {parameter.arg_name: parameter.description for parameter in text.params}
    if text.returns:
        said["Output"] = text.returns.description
    spec = component.component_spec
    metadata = yaml.safe_load((folder_of(stage) / "metadata.yaml").read_text(encoding="utf-8"))
    needs = ", ".join(f"{n['name']} {n['version']}" for n in metadata["dependencies"]["kubeflow"])
    about = [part for part in (text.short_description, text.long_description) if part]
    parts = [
        f"# {stage}",
        *about,
        "## Inputs",
        _table(spec.inputs or {}, said),
        "## Outputs",
        _table(spec.outputs or {}, said),
        "## Example",
        "Inside a `@dsl.pipeline`. `component.yaml` is the same component for "
        "`kfp.components.load_component_from_file`.",
        f"```python\nfrom components.{stage} import {stage}\n\n{_EXAMPLES[stage]}\n```",
        "## Metadata",
        f"- Stability: {metadata['stability']}\n- Kubeflow: {needs}",
        "Generated from the docstring of `component.py` by `python -m components.generate`.",
    ]
    return "\n\n".join(parts) + "\n"


def component_named(name: str) -> BaseComponent:
    """The component that a folder holds."""
    found: BaseComponent = getattr(importlib.import_module(f"components.{name}.component"), name)
    return found


def write_yaml(name: str, target: Path) -> None:
    """Compile a component; the same contract gives the same bytes."""
    compiler.Compiler().compile(component_named(name), str(target))


def main() -> None:
    """Write the files of every component."""
    for name in COMPONENTS:
        (folder_of(name) / "README.md").write_text(readme(name), encoding="utf-8")
        write_yaml(name, folder_of(name) / "component.yaml")


def _table(ports: dict[str, Any], said: dict[str, str | None]) -> str:
    rows = ["| Name | Type | Description |", "|---|---|---|"]
    for name, port in ports.items():
        described = " ".join((said[name] or "").split())
        rows.append(f"| `{name}` | {_type(port)} | {described} |")
    return "\n".join(rows)


def _type(port: Any) -> str:
    kind = _PARAMETERS.get(port.type, port.type.removeprefix("system.").split("@")[0])
    return f"list of {kind}" if port.is_artifact_list else kind


if __name__ == "__main__":
    main()
