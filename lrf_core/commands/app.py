"""`lrf ...`: the commands in the order of use, and how errors end them."""

from __future__ import annotations

import functools
import inspect
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated

import typer

from lrf_core import telemetry
from lrf_core.commands import (
    compress,
    exploring,
    export,
    frontier,
    judging,
    profile,
    promote,
    releases,
    settings,
)
from lrf_core.commands.flags import suggest_setting
from lrf_core.commands.output import locks
from lrf_core.console import interrupts, progress, terminal
from lrf_core.errors import (
    DISK_FAULTS,
    EXIT_BAD_INPUT,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    LrfError,
    SpecError,
)
from lrf_core.redaction import one_line, shown
from lrf_core.sandbox.setting import sandbox_switched

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
    """The command, with its metrics pushed and its folder unlocked at its end."""

    @functools.wraps(command)
    def run(**flags: object) -> None:
        ended = None
        with telemetry.job(command.__name__), locks:
            try:
                command(**flags)
            except typer.Exit as by_gate:  # the command itself has not failed
                ended = by_gate
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
app.command("spec")(settings.spec)
app.add_typer(releases.app, name="releases")

# Commands of packages above the library, which it does not import.
_COMMANDS = "lrf.commands"


def add_commands(found: Iterable[EntryPoint]) -> None:
    """Add commands, or groups of commands, that packages offer.

    One that cannot be loaded says so when it is called.
    """
    for each in found:
        try:
            command = each.load()
        except Exception as error:  # noqa: BLE001 - whatever a broken package raises
            command = _broken(each, error)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=each.name)
        else:
            app.command(each.name)(command)


def _broken(command: EntryPoint, error: Exception) -> Callable[[], None]:
    reason = f"{type(error).__name__}: {one_line(error, 200)}"

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
    terminal.open_closed_streams()
    with progress.shown():
        run_command_line(app)


def run_command_line(app: typer.Typer) -> None:
    """Run an app; a known error is one line on standard error, and its exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    terminal.protect()
    code = _run(app)
    if interrupts.received():
        interrupts.leave()
    if code == EXIT_INTERRUPTED:
        sys.stderr.write(interrupts.MESSAGE)
    sys.exit(code)


def _run(app: typer.Typer) -> int:
    """The exit code."""
    try:
        with interrupts.raised():
            logging.getLogger("lrf").setLevel(_log_level())
            # Not `app()`, which replaces the hook for exceptions.
            code = typer.main.get_command(app)(standalone_mode=False)
            sys.stdout.flush()
            return code or EXIT_OK
    except LrfError as error:
        terminal.say(f"lrf: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as ended:  # the reader of standard output is gone
        return int(ended.code or EXIT_OK)
    except BrokenPipeError:
        terminal.give_up_output()
        return EXIT_FAILURE
    except Exception as error:
        if usage := _usage_problem(error):
            sys.stderr.write(shown(usage, lines=True))
            return EXIT_BAD_INPUT
        logging.getLogger("lrf").debug("unexpected", exc_info=True)
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            terminal.say(
                f"lrf: cannot write {error.filename or 'a file'}: {error.strerror}; make room, or "
                "name another folder for temporary files in TMPDIR"
            )
            return EXIT_BAD_INPUT
        terminal.say(f"lrf: unexpected {type(error).__name__}: {one_line(error)}")
        return EXIT_FAILURE


def _usage_problem(error: Exception) -> str | None:
    """The message of typer about wrong flags and arguments; None for another error."""
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "format_message"):
        return None
    message = io.StringIO()
    show(file=message)
    suggestion = suggest_setting(getattr(error, "option_name", None) or "")
    return message.getvalue() + (f"{suggestion}\n" if suggestion else "")


def _log_level() -> str:
    """From the environment: "debug" says which layer is scored, and where an error came from."""
    level = os.environ.get("LRF_LOG_LEVEL", "info").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SpecError(f"LRF_LOG_LEVEL is {level!r}; set debug, info, warning or error")
    return level
