"""`lrf ...`: the commands in the order of use, and how errors end them."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

import typer

from lrf_core import progress, telemetry
from lrf_core.commands import (
    compress,
    exploring,
    export,
    frontier,
    judging,
    profile,
    promote,
    releases,
)
from lrf_core.errors import EXIT_FAILURE, EXIT_INTERRUPTED, LrfError, SpecError
from lrf_core.models.sandbox.setting import sandbox_switched

app = typer.Typer(
    help="Low-rank compression of Keras CNNs: smaller models that passed a gate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_SANDBOX = inspect.Parameter(
    "sandbox",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        bool | None,
        typer.Option(
            "--sandbox/--no-sandbox",
            help="Read models in a process that can do nothing else.  [default: as LRF_SANDBOX "
            "says, else not]",
        ),
    ],
)


def _with_sandbox_flag(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with a flag for how it reads models."""

    @functools.wraps(command)
    def run(sandbox: bool | None = None, **flags: object) -> None:
        with sandbox_switched(sandbox):
            command(**flags)

    signature = inspect.signature(command, eval_str=True)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), _SANDBOX]
    )
    return run


def _as_job(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with metrics of it pushed at its end."""

    @functools.wraps(command)
    def run(**flags: object) -> None:
        ended = None
        with telemetry.job(command.__name__):
            try:
                command(**flags)
            except typer.Exit as said_no:  # by the gate: the command has not failed
                ended = said_no
        if ended:
            raise ended

    return run


for _command in (
    compress.compress,
    exploring.analyze,
    profile.profile,
    exploring.explore,
    frontier.frontier,
    exploring.decompose,
    judging.finetune,
    judging.validate,
    judging.publish,
    promote.promote,
    export.export,
):
    _reads_models = _command is not frontier.frontier
    app.command()(_as_job(_with_sandbox_flag(_command) if _reads_models else _command))
app.add_typer(releases.app, name="releases")

# Commands of packages above the library, which it does not import.
_COMMANDS = "lrf.commands"


def add_commands(found: Iterable[EntryPoint]) -> None:
    """Add commands that packages offer; one that cannot be loaded says so when it is called."""
    for each in found:
        try:
            command = each.load()
        except Exception as error:  # noqa: BLE001 - whatever a broken package raises
            command = _broken(each, error)
        app.command(each.name)(command)


def _broken(command: EntryPoint, error: Exception) -> Callable[[], None]:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def cannot_be_loaded() -> None:
        raise LrfError(
            f"the command '{command.name}' cannot be loaded from {command.value} ({reason}); "
            "install the package that offers it again"
        )

    cannot_be_loaded.__doc__ = f"Cannot be loaded from {command.value}."
    return cannot_be_loaded


add_commands(entry_points(group=_COMMANDS))


def main() -> None:
    """`lrf`, with progress on standard error."""
    with progress.shown():
        run_command_line(app)


def run_command_line(app: typer.Typer) -> None:
    """Run an app; a known error is one line on standard error, and its exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    try:
        logging.getLogger("lrf").setLevel(_log_level())
        app()
    except LrfError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:
            _say("interrupted; run the same command again to go on")
        raise
    except Exception as error:
        logging.getLogger("lrf").debug("unexpected", exc_info=True)
        _say(f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        sys.exit(EXIT_FAILURE)


def _log_level() -> str:
    """From the environment: "debug" says which layer is scored, and where an error came from."""
    level = os.environ.get("LRF_LOG_LEVEL", "info").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SpecError(f"LRF_LOG_LEVEL is {level!r}; set debug, info, warning or error")
    return level


def _say(line: str) -> None:
    sys.stderr.write(f"lrf: {line}\n")


if __name__ == "__main__":
    main()
