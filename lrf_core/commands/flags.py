"""Commands as functions of a spec: their flags, and the help of each, come from the spec's models.

A command names the settings that get a flag of their own; `--set section.key=value` reaches all.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic.fields import FieldInfo

from lrf_core.errors import SpecError
from lrf_core.spec import Spec, make_spec, read_spec, strict_yaml
from lrf_core.spec.problems import section_in

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
OutOption = Annotated[Path, typer.Option(help="Folder of the artifacts of a run.")]
SpacesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--space",
        help="Design space to read; once for each shard.  "
        "[default: OUT/design_space.parquet, or the shards in OUT]",
    ),
]

_SPEC_HELP = "YAML file with settings; flags override it."
_SET = inspect.Parameter(
    "assignments",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting of the spec, e.g. explore.memory_gib=2; `lrf spec` lists them.",
        ),
    ],
)

Command = Callable[..., None]


def by_spec(
    *keys: str,
    needs: Collection[str] = ("model", "data"),
    file_first: bool = False,
    passes_file: bool = False,
    in_own_folder: bool = True,
) -> Callable[[Command], Command]:
    """Make a command of a function whose first argument is a `Spec`.

    Args:
        keys: settings with a flag of their own, e.g. "goal.max_accuracy_drop" for
            `--max-accuracy-drop`. "model" is the argument MODEL.
        needs: settings that must be given, by a flag or in the file.
        file_first: the spec's file is the argument SPEC, not the option `--spec`.
        in_own_folder: whether it runs here, see `Spec.in_own_folder`.
        passes_file: the function's second argument is that file, or None.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            flags = {key: _pop_value(values, key) for key in keys}
            file = values.pop("spec_file")
            spec = spec_from_flags(file, flags, values.pop("assignments") or (), needs)
            spec = spec.in_own_folder() if in_own_folder else spec
            function(spec, *([file] if passes_file else []), **values)

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        own = own[1:] if passes_file else own
        flags = [flag for key in keys for flag in _flags(key)]
        parameters = [*flags, *own, _SET]
        parameters.insert(0 if file_first else len(flags), _spec_file(file_first))
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        return run

    return decorate


def spec_from_flags(
    file: Path | None,
    flags: dict[str, Any],
    assignments: Sequence[str] = (),
    needs: Collection[str] = ("model", "data"),
) -> Spec:
    """The spec of a command; assignments override flags, which override the file.

    Args:
        flags: value of each setting; None overrides nothing.
        assignments: `key=value` each, the value in YAML.

    Raises:
        SpecError: a needed setting is missing, or something is wrong with the settings.
    """
    settings = read_spec(file) if file else {}
    for key, value in flags.items():
        if value is not None:
            _assign(settings, key, value)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"--set {assignment}: give KEY=VALUE, e.g. --set explore.samples=256")
        _assign(settings, key.strip(), _yaml(assignment, value))
    for key in needs:
        if not settings.get(key):
            flag = "MODEL" if key == "model" else f"--{key}"
            raise SpecError(f"{flag} is missing; give it, or --spec with '{key}:' in it")
    return make_spec({"model": "", "data": "", **settings})


def setting_keys() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting of the spec with its description, in the order of the spec."""
    yield from _keys_of(Spec, "")


def suggest_setting(option: str) -> str | None:
    """How to give a setting that has no flag of this name; None if there is no such setting."""
    name = option.lstrip("-").replace("-", "_")
    key = next((key for key, _ in setting_keys() if key.rpartition(".")[2] == name), None)
    return f"it is a setting without a flag: use --set {key}=VALUE" if key else None


def _keys_of(section: type[Any], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        below = section_in(field.annotation)
        if below and not _is_collection(field.annotation):
            yield from _keys_of(below, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _yaml(assignment: str, value: str) -> Any:
    try:
        return strict_yaml.parsed(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:300]
        raise SpecError(f"--set {assignment}: the value is not valid YAML: {reason}") from None


def _is_collection(annotation: Any) -> bool:
    parts = get_args(annotation) if _is_union(annotation) else (annotation,)
    return any(get_origin(part) in (tuple, list, dict) for part in parts)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        below = settings.get(section)
        # What is no section is left for the validation to name.
        settings[section] = below = dict(below) if isinstance(below, dict) else {}
        settings = below
    settings[name] = value


def _pop_value(values: dict[str, Any], key: str) -> Any:
    name = _name(key)
    value, is_off = values.pop(name), values.pop(f"no_{name}", False)
    if is_off and value is not None:
        raise SpecError(f"--{name} and --no-{name} exclude each other; give one of them")
    if isinstance(value, str) and get_origin(_kind(_field(key))) is tuple:
        return [part.strip() for part in value.split(",")]
    return False if is_off else value


def _spec_file(is_argument: bool) -> inspect.Parameter:
    kind: Any = (
        Annotated[Path, typer.Argument(metavar="SPEC", help=_SPEC_HELP)]
        if is_argument
        else Annotated[Path | None, typer.Option("--spec", help=_SPEC_HELP)]
    )
    default = inspect.Parameter.empty if is_argument else None
    return inspect.Parameter(
        "spec_file", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
    )


def _flags(key: str) -> Iterator[inspect.Parameter]:
    field, name = _field(key), _name(key)
    kind, text = _kind(field), field.description or ""
    if not field.is_required() and field.default not in (None, (), ""):
        shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        text += f"  [default: {shown}]"
    is_list = get_origin(kind) is tuple
    flag_type = str if is_list or get_origin(kind) is Literal else kind
    info = (
        typer.Argument(metavar="MODEL", help=text)
        if key == "model"
        else typer.Option(f"--{name.replace('_', '-')}", help=text)
    )
    yield _optional(name, Annotated[flag_type | None, info])
    if any(False in get_args(part) for part in get_args(field.annotation)):
        off = typer.Option(f"--no-{name.replace('_', '-')}", help=f"No {name}: nothing is stored.")
        yield inspect.Parameter(
            f"no_{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, off],
        )


def _optional(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _field(key: str) -> FieldInfo:
    return dict(setting_keys())[key]


def _kind(field: FieldInfo) -> Any:
    """The type of a setting without None, constraints and false."""
    annotation: Any = field.annotation
    while _is_union(annotation) or get_origin(annotation) is Annotated:
        annotation = next(
            part
            for part in get_args(annotation)
            if part is not type(None) and get_args(part) != (False,)
        )
    return annotation
