"""Bring a release into service: checked, step by step, and taken back where anything fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lrf_core import telemetry
from lrf_core.artifacts import Lineage
from lrf_core.artifacts.promotion import Outcome, Promotion
from lrf_core.errors import ArtifactError, LrfError, PromotionError
from lrf_core.kubernetes_api import connected
from lrf_core.registry import open_registry
from lrf_core.releases import CatalogEntry, resolve, set_alias
from lrf_core.releases.answers import SampleAnswers
from lrf_core.releases.index import CHAMPION, PREVIOUS
from lrf_core.releases.layout import SAVED_MODEL, file_key
from lrf_core.serving.journal import Journal
from lrf_core.serving.plan import JSON, PromotionPlan, Wanted, is_served, plan_for, with_rollback
from lrf_core.serving.rollout import Rollout, metric_for, protocol_of
from lrf_core.serving.service import ChangedMeanwhileError, InferenceService
from lrf_core.serving.state import state_of
from lrf_core.spec import GateSpec, PromoteSpec
from lrf_core.stages.promotable import check_release
from lrf_core.storage import Store, open_store

_logger = logging.getLogger("lrf")


class NotPromotedError(PromotionError):
    """A promotion that ended otherwise; `promotion` says how, step by step."""

    def __init__(self, message: str, promotion: Promotion) -> None:
        super().__init__(message)
        self.promotion = promotion


@dataclass(frozen=True)
class Preview:
    """What `promote` would do.

    Attributes:
        patch: the first merge patch; empty if the release is served already.
        steps: percent of the traffic, one after the other.
        service: what the API makes of the service by the patch.
    """

    release: str
    patch: JSON
    steps: tuple[int, ...]
    service: JSON


def promote(
    store: str, name: str, ref: str, settings: PromoteSpec, gate: GateSpec | None = None
) -> Promotion:
    """Serve a release by a KServe InferenceService.

    The service first loads the release beside what it serves, without traffic; its answers are
    compared with those recorded in the release; then the traffic moves in steps, watched at each.
    Whatever fails after the first change is rolled back. In the end the release is `champion`.

    Killed and called again, it goes on where it was: all it needs to know is in the service.

    Args:
        store: where the releases are, see `lrf_core.storage.open_store`.
        name: of the released model.
        ref: an alias, a number, or `v-...`.
        settings: the service, the steps of the traffic, and what is watched.
        gate: the limits that the verdict must have been made by; None if nobody asked for any.

    Raises:
        PublishRefusedError: the release may not be served; nothing was changed.
        ClusterError: the API cannot be reached or refuses; nothing was changed.
        PromotionError: the service cannot take it; nothing was changed.
        NotPromotedError: it failed after the first change; the message says what is served now.
    """
    opened, listed, wanted, recorded = _checked(store, name, ref, settings, gate)
    with _service(settings) as service:
        current = service.get()
        plan = _planned(current, wanted, settings)
        journal = Journal()
        rollout = Rollout(service, current, plan, recorded, settings, journal)
        report = _Report(listed, wanted, settings, state_of(current).mode, journal)
        if is_served(state_of(current), wanted) and CHAMPION in listed.aliases:
            rollout.verify()
            _logger.info("%s serves %s already; nothing to do", settings.service, wanted.release)
            _name_champion(opened, listed, settings)
            return report.ended("already_served")
        try:
            rollout.run()
        except ChangedMeanwhileError as error:
            raise report.failed("left", str(error)) from None
        except KeyboardInterrupt:
            _logger.warning("interrupted; rolling back (interrupt again to leave it as it is)")
            _logger.warning("%s", _rolled_back(rollout, report, "it was interrupted"))
            raise
        except LrfError as error:
            if not rollout.touched:
                raise
            raise _rolled_back(rollout, report, str(error)) from None
        except Exception as error:
            _logger.warning("%s", _rolled_back(rollout, report, f"{type(error).__name__}: {error}"))
            raise
        try:
            with journal.step("champion"):
                _name_champion(opened, listed, settings)
        except LrfError as error:
            raise report.failed(
                "promoted",
                f"{wanted.release} is served, but is not named champion: {error}; run the same "
                "command again",
            ) from None
        return report.ended("promoted")


def preview(
    store: str, name: str, ref: str, settings: PromoteSpec, gate: GateSpec | None = None
) -> Preview:
    """Check all that can be checked without writing. Raises as `promote` does."""
    _, _, wanted, _ = _checked(store, name, ref, settings, gate)
    with _service(settings) as service:
        current = service.get()
        plan = _planned(current, wanted, settings)
        if is_served(state_of(current), wanted) or plan.resumed:
            return Preview(wanted.release, {}, plan.steps, current)
        made = service.preview(plan.patch)
        return Preview(wanted.release, with_rollback(plan.patch, current, made), plan.steps, made)


def roll_back(settings: PromoteSpec) -> Promotion:
    """Undo the last promotion of a service, finished or not, by what it records itself.

    Raises:
        PromotionError: the service records none.
        NotPromotedError: it could not be restored; the message says what is served now.
    """
    with _service(settings) as service:
        current = service.get()
        state, journal = state_of(current), Journal()
        wanted = Wanted(
            release=state.annotations.get("lrf.io/release", ""),
            digest=state.annotations.get("lrf.io/model-digest", ""),
            storage_uri=state.storage_uri or "",
        )
        plan = PromotionPlan({}, (), canary=False, final=None, resumed=True)
        rollout = Rollout(service, current, plan, SampleAnswers({}, {}), settings, journal)
        report = _Report(None, wanted, settings, state.mode, journal)
        try:
            rollout.roll_back()
        except LrfError as error:
            if not journal.steps:
                raise
            raise report.failed("left", f"not restored: {error}") from None
        _logger.info("aliases stay as they are; `lrf releases rollback` moves champion back")
        return report.ended("rolled_back")


@dataclass(frozen=True)
class _Report:
    """Makes the artifact of a promotion."""

    listed: CatalogEntry | None
    wanted: Wanted
    settings: PromoteSpec
    mode: Any
    journal: Journal

    def ended(self, outcome: Outcome, reason: str = "") -> Promotion:
        # A user who rolls back has no release in mind, and is not to be alarmed by it.
        by_hand = outcome == "rolled_back" and self.listed is None
        telemetry.count_promotion(self.settings.service, "undone" if by_hand else outcome)
        return Promotion(
            lineage=Lineage(
                inputs={"model": self.wanted.digest},
                settings=self.settings.model_dump(mode="json"),
                parent=self.listed.release.digest() if self.listed else None,
            ),
            release=self.wanted.release,
            number=self.listed.number if self.listed else 0,
            service=self.settings.service,
            storage_uri=self.wanted.storage_uri,
            mode=self.mode,
            outcome=outcome,
            reason=reason,
            steps=tuple(self.journal.steps),
        )

    def failed(self, outcome: Outcome, reason: str) -> NotPromotedError:
        return NotPromotedError(reason, self.ended(outcome, reason))


def _checked(
    uri: str, name: str, ref: str, settings: PromoteSpec, gate: GateSpec | None
) -> tuple[Store, CatalogEntry, Wanted, SampleAnswers]:
    store = open_store(uri)
    listed = resolve(store, name, ref)
    release = listed.release
    recorded = check_release(store, release, settings, gate)
    # The place whose bytes were just checked, whatever the manifest calls it.
    location = store.url(file_key(release.name, release.version, SAVED_MODEL))
    if location.startswith("file:"):
        _logger.warning(
            "%s is a path in the serving container; KServe reads other places than its own disk "
            "from s3:// addresses",
            location,
        )
    wanted = Wanted(f"{release.name}/{release.version}", release.model_digest, location)
    if settings.prometheus:
        metric_for(settings, "").values()  # what cannot be asked now cannot be asked later
    return store, listed, wanted, recorded


def _planned(current: JSON, wanted: Wanted, settings: PromoteSpec) -> PromotionPlan:
    plan = plan_for(current, wanted, settings)
    if not settings.protocol:
        protocol_of(current)
    return plan


@contextmanager
def _service(settings: PromoteSpec) -> Iterator[InferenceService]:
    with connected("promote on", "run it where one can be reached") as client:
        yield InferenceService(client, settings.service)


def _rolled_back(rollout: Rollout, report: _Report, reason: str) -> NotPromotedError:
    """Roll back, and make of it what is to be raised."""
    release, service = report.wanted.release, report.settings.service
    try:
        rollout.roll_back()
    except KeyboardInterrupt:
        _logger.warning(
            "left as it is; `lrf promote --rollback --service %s` undoes the rest", service
        )
        raise
    except LrfError as error:
        return report.failed(
            "left",
            f"{release} is not promoted: {reason}. Rolling {service} back did not end: {error}. "
            f"Undo the rest with `lrf promote --rollback --service {service}`",
        )
    return report.failed(
        "rolled_back",
        f"{release} is not promoted: {reason}. {service} is restored and serves what it did before",
    )


def _name_champion(store: Store, listed: CatalogEntry, settings: PromoteSpec) -> None:
    """In the store, and from there in the registries; the same when done again."""
    if CHAMPION not in listed.aliases:
        set_alias(store, listed.release.name, CHAMPION, listed.number)
    if not settings.registries:
        return
    previous = _previous(store, listed.release.name)
    for uri in settings.registries:
        registry = open_registry(uri, store)
        registry.set_alias(listed.release, listed.number, CHAMPION)
        # What was served before there was a registry is not registered.
        if previous and registry.find(previous.release.name, previous.release.version):
            registry.set_alias(previous.release, previous.number, PREVIOUS)


def _previous(store: Store, name: str) -> CatalogEntry | None:
    try:
        return resolve(store, name, PREVIOUS)
    except ArtifactError:
        return None  # the first champion there ever was
