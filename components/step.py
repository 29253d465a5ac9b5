"""What every component does around its stage: read the spec, log plainly, end errors in one line.

The source of a component's body is all that reaches the container; it imports this from the image.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.content import check_content
from lrf_core import telemetry
from lrf_core.console import interrupts, progress, terminal
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import EXIT_INTERRUPTED, LrfError, SpecError
from lrf_core.sandbox.setting import sandbox_default
from lrf_core.spec import Spec, make_spec, parse_spec

# In place of an address in a spec.
_UNREAD = "-"
_LINE = re.compile(r"\[lrf (?P<stage>[a-z]+)\] (?P<text>.*)")
_FAILED = re.compile(r"failed, exit code (?P<exit_code>\d+): (?P<reason>.*)")


@dataclass(frozen=True)
class StepLine:
    """One line that a component logged. `exit_code` is set on the line that ends it."""

    stage: str
    text: str
    exit_code: int | None = None


@contextmanager
def step(
    stage: str,
    spec: str,
    part: str | int = "",
    *,
    content: str = "",
    inputs: Mapping[str, str | None] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[Spec]:
    """Run the body of a component; yields the spec.

    Progress goes to standard output as lines that `read_line` understands. An LrfError becomes
    one such line. Metrics are pushed at the end; see `lrf_core.telemetry`. Models are read in the
    sandbox unless `LRF_SANDBOX` says otherwise.

    Args:
        stage: the component's name.
        spec: settings of a spec, as JSON or YAML.
        part: of steps side by side in one run, which one.
        content: `content_of(spec).digest` when the run was submitted; the inputs are compared with
            it before the body and after it, so that no other content's results are kept under it.
        inputs: of "model" and "data" those that this step reads, to where the artifact lies that
            takes its place in the spec; None if the spec has to name it. Errors name the input.
        parameters: names of settings, as in "goal.params_reduction", to values that override those
            of the spec; None overrides nothing.

    Raises:
        SystemExit: an LrfError was raised; with its exit code. Or the step was interrupted.
    """
    logger = logging.getLogger("lrf")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"[lrf {stage}] %(message)s"))
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    started = time.monotonic()
    terminal.protect()
    try:
        with (
            interrupts.handled(),
            _interruptible(),
            progress.shown(),
            telemetry.job(stage, part),
            sandbox_default(True),
        ):
            import_tensorflow_quietly()
            settings = _spec_of(spec, inputs or {}, parameters or {})
            check_content(settings, content)
            yield settings
            check_content(settings, content)
        logger.info("done in %.1f s", time.monotonic() - started)
    except LrfError as error:
        reason = " ".join(str(error).split())
        for name, path in (inputs or {}).items():
            reason = reason.replace(path, f"the input '{name}'") if path else reason
        logger.error("failed, exit code %d: %s", error.exit_code, reason)
        raise SystemExit(error.exit_code) from None
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        with interrupts.raised():
            yield
    except KeyboardInterrupt:
        if interrupts.received():
            interrupts.leave()
        raise SystemExit(EXIT_INTERRUPTED) from None


def _spec_of(text: str, inputs: Mapping[str, str | None], parameters: Mapping[str, Any]) -> Spec:
    settings = parse_spec(text, "the spec") if text.strip() else {}
    overrides: dict[str, Any] = {}
    for name, path in inputs.items():
        if path and settings.get(name) not in (None, _UNREAD):
            raise SpecError(
                f"the spec names the {name} {settings[name]!r:.200}, and the step gets another as "
                f"an artifact; leave '{name}' out of the spec"
            )
        overrides[name] = path
    for name in {"model", "data"} - set(inputs):
        # A step that does not read it, as it is an artifact of another step or of none.
        settings.setdefault(name, _UNREAD)
    for setting, value in parameters.items():
        section, _, name = setting.partition(".")
        overrides.setdefault(section, {})[name] = value
    return make_spec(settings, overrides)


def read_line(line: str) -> StepLine | None:
    """A line of a component's log as `step` wrote it; None for what others wrote."""
    found = _LINE.fullmatch(line.strip())
    if not found:
        return None
    failed = _FAILED.fullmatch(found["text"])
    if failed:
        return StepLine(found["stage"], failed["reason"], int(failed["exit_code"]))
    return StepLine(found["stage"], found["text"])
