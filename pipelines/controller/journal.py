"""One line for each thing that happens, and its metric."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lrf_core.errors import ArtifactError, LrfError
from lrf_core.redaction import one_line
from pipelines.controller.engine import RunEnd
from pipelines.controller.metrics import Metrics
from pipelines.controller.request import Request

logger = logging.getLogger("lrf")


class Journal:
    """Logs what happens; an error that lasts is one line, and one more when it is over."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._lasting: dict[str, str] = {}

    def accepted(self, request: Request) -> None:
        """A new request was written."""
        logger.info("%s asks: request %s", request.source, request)

    def unusable(self, source: str, reference: str, problem: str) -> None:
        """A model asks for what cannot be done."""
        logger.warning("%s: %s cannot be compressed: %s", source, reference, problem)

    def started(self, request: Request) -> None:
        """A run was started, or found to be started, and noted."""
        self.metrics.runs_started.labels(request.source).inc()
        logger.info("%s runs as %s (attempt %d)", request, request.run_id, request.attempts)

    def not_started(self, request: Request, error: LrfError) -> None:
        """A run could not be started, and its request waits again."""
        self.metrics.errors.labels(request.source, type(error).__name__).inc()
        logger.warning("%s could not be started: %s", request, error)

    def ended(self, before: Request, after: Request, end: RunEnd) -> None:
        """A run has ended, and what its request became."""
        outcome = "retried" if after.state == "waiting" else after.state
        self.metrics.runs_finished.labels(after.source, outcome).inc()
        taken = max((after.since - before.since).total_seconds(), 0.0)
        self.metrics.run_duration.observe(taken)
        if after.state == "published":
            where = end.result.release if end.result else None
            logger.info("%s is published after %.0f s: %s", after, taken, where or "see its run")
        elif after.state == "waiting":
            logger.warning(
                "%s failed after %.0f s, attempt %d; tried again not before %s: %s",
                after,
                taken,
                after.attempts,
                after.not_before and after.not_before.isoformat(timespec="seconds"),
                after.reason,
            )
        else:
            logger.warning("%s is %s after %.0f s: %s", after, after.state, taken, after.reason)

    def polled(self, source: str) -> None:
        """A source was read without an error."""
        self.metrics.last_poll.labels(source).set(time.time())

    def damaged(self, key: str, reason: str) -> None:
        """An object of the state store cannot be read."""
        with self.log_and_continue("state", key):
            raise ArtifactError(reason)

    @contextmanager
    def log_and_continue(self, source: str, what: str) -> Iterator[None]:
        """Count and log an error in place of raising it: others go on.

        Args:
            source: the label of the error.
            what: was being done; the same error in it again is not logged again.
        """
        try:
            yield
        except LrfError as error:
            self._failed(source, what, error, str(error))
        except Exception as error:
            logger.debug("unexpected", exc_info=True)
            line = f"unexpected {type(error).__name__}: {one_line(error)}"
            self._failed(source, what, error, line)
        else:
            if self._lasting.pop(what, None) is not None:
                logger.info("%s: works again", what)

    def _failed(self, source: str, what: str, error: Exception, line: str) -> None:
        self.metrics.errors.labels(source, type(error).__name__).inc()
        if self._lasting.get(what) != line:
            self._lasting[what] = line
            logger.warning("%s: %s", what, line)
