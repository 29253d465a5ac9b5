"""`lrf ...`: the commands in the order of use, and how errors end them."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points

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
from lrf_core.commands.asked import held
from lrf_core.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_INTERRUPTED, LrfError, SpecError

app = typer.Typer(
    help="Low-rank compression of Keras CNNs: smaller models that passed a gate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _as_job(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with metrics of it pushed at its end, and its output folder let go."""

    @functools.wraps(command)
    def run(**flags: object) -> None:
        ended = None
        with telemetry.job(command.__name__), held:
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
    app.command()(_as_job(_command))
app.add_typer(releases.app, name="releases")

# What a disk that is full or read-only says, of temporary files mostly.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

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
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            _say(
                f"cannot write {error.filename or 'a file'}: {error.strerror}; make room, or name "
                "another folder for temporary files in TMPDIR"
            )
            sys.exit(EXIT_BAD_INPUT)
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
