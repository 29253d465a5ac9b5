"""The controller as a process: its parts put together, run until a signal, and stopped."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lrf_core import telemetry
from lrf_core.errors import EXIT_OK, SpecError
from lrf_core.spec import make_spec
from lrf_core.storage import open_store
from pipelines.controller.engine import Engine
from pipelines.controller.intake import Intake
from pipelines.controller.journal import Journal, Metrics, logger
from pipelines.controller.local_runs import LocalRuns
from pipelines.controller.loop import Alone, Leader, Loop
from pipelines.controller.reconcile import Reconciler
from pipelines.controller.request_store import RequestStore
from pipelines.controller.serve import serving
from pipelines.controller.settings import ControllerSettings, LeaseSettings
from pipelines.controller.sources import open_source
from pipelines.controller.transitions import Limits


def identity() -> str:
    """Names this process in a Lease and in claims; the next one after it has another name."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:12]}"


# Work in progress may take so long after a signal; then it is left as it is.
_GRACE_S = 5.0


def run(settings: ControllerSettings, specs: dict[str, dict[str, Any]], local: Path | None) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        specs: the named specs, as plain settings.
        local: folder for runs on this machine; None to start them in Kubeflow Pipelines.

    Raises:
        LrfError: settings that cannot be used.
    """
    check_places(settings, specs)
    run_with(settings, specs, _engine(settings, local))


def run_with(
    settings: ControllerSettings, specs: dict[str, dict[str, Any]], engine: Engine
) -> None:
    """As `run`, with an engine of one's own."""
    log_with_times()
    me = identity()
    metrics = Metrics([source.uri for source in settings.sources])
    # What this process itself moves to and from object storage.
    metrics.registry.register(telemetry.current().registry)
    journal = Journal(metrics)
    ledger = RequestStore(open_store(settings.state))
    sources = [open_source(source) for source in settings.sources]
    limits = Limits(settings.parallel, settings.attempts, settings.backoff)
    stopping = _stopped_by_signals()
    with _leader(settings.lease, me) as leader:
        reconciler = Reconciler(ledger, engine, limits, journal, me)
        intake = Intake(ledger, specs, journal)
        loop = Loop(
            ledger, sources, intake, reconciler, journal, leader, settings.poll, stopping=stopping
        )
        reconciler.may_work = loop.may_work
        with serving(settings.address(), loop.health, loop.readiness, metrics.registry) as port:
            logger.info("%s serves /healthz, /readyz and /metrics at port %d", me, port)
            working = threading.Thread(target=loop.run, name="loop", daemon=True)
            working.start()
            stopping.wait()
            logger.info("stopping; runs go on")
            working.join(_GRACE_S)
    if working.is_alive():
        # A kill at any moment is survived, so waiting for a server that is down has no point.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(EXIT_OK)


def check_places(settings: ControllerSettings, specs: dict[str, dict[str, Any]]) -> None:
    """Raise SpecError where what the controller writes would be taken for incoming models."""
    written = {"state": settings.state}
    for name, spec in specs.items():
        written[f"publish.to of spec {name}"] = make_spec(spec, {"model": "-"}).publish.to or ""
    for source in settings.sources:
        if source.spec is not None and source.spec not in specs:
            known = ", ".join(sorted(specs))
            raise SpecError(f"source {source.uri}: there is no spec '{source.spec}', only {known}")
        if "+" in source.uri.partition("://")[0]:
            if source.spec is not None:
                raise SpecError(
                    f"source {source.uri}: `spec` is for buckets; in a registry each version names "
                    "its spec in the property lrf.compress"
                )
            continue
        for what, place in written.items():
            if _is_below(place, source.uri):
                raise SpecError(
                    f"{what} ({place}) lies below the source {source.uri}, so what is written "
                    "there would be compressed; use another prefix"
                )


def _is_below(place: str, source: str) -> bool:
    def normal(uri: str) -> str:
        return open_store(uri).url().rstrip("/") + "/"

    return normal(place).startswith(normal(source))


def _engine(settings: ControllerSettings, local: Path | None) -> Engine:
    if local is not None:
        return LocalRuns(local.absolute())
    if settings.pipelines is None:
        raise SpecError(
            "the settings name no Kubeflow Pipelines (`pipelines: {host: ...}`); name one, or run "
            "here with --local DIR"
        )
    if settings.state.startswith("file:") or "://" not in settings.state:
        raise SpecError(
            f"state {settings.state} is a folder, which runs on a cluster cannot read; use "
            "s3://bucket/prefix"
        )
    from pipelines.controller.kfp_runs import KfpRuns

    return KfpRuns(settings.pipelines)


@contextmanager
def _leader(settings: LeaseSettings | None, me: str) -> Iterator[Leader]:
    if settings is None:
        yield Alone()
        return
    from pipelines.controller.lease import lease_election

    with lease_election(settings.name, settings.namespace, settings.duration, me) as election:
        yield election


def _stopped_by_signals() -> threading.Event:
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


def log_with_times() -> None:
    """A process that runs for weeks says when; commands do not."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        )
