"""Which patches bring a release into an InferenceService, and which take it out again."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from lrf_core.errors import PromotionError
from lrf_core.serving.state import ServiceState, state_of
from lrf_core.spec.promote import PromoteSpec

_logger = logging.getLogger("lrf")

RELEASE = "lrf.io/release"
DIGEST = "lrf.io/model-digest"
# The merge patch that restores what was there before, as JSON. KServe copies annotations into the
# template of the revisions, so that changing one makes a new revision: they are written once, with
# the model, and how far the traffic has moved is read from canaryTrafficPercent.
ROLLBACK = "lrf.io/rollback"
# Gives the newest revision an address of its own, where it can be asked before it gets traffic.
TAG_ROUTING = "serving.kserve.io/enable-tag-routing"

MODEL_FORMAT = "tensorflow"
_DEFAULT_STEPS = (10, 50, 100)


@dataclass(frozen=True)
class Wanted:
    """What a service is to serve.

    Attributes:
        release: name/version.
        digest: of the model's content.
        storage_uri: of the folder with the SavedModel's versions.
    """

    release: str
    digest: str
    storage_uri: str


@dataclass(frozen=True)
class PromotionPlan:
    """How a release comes into a service.

    Attributes:
        patch: the first one: the model, and in a canary rollout no traffic yet.
        steps: percent of the traffic, one after the other; 100 is the whole.
        canary: whether old and new are served side by side meanwhile.
        final: `canaryTrafficPercent` at the end; None: not set, as it was before.
        resumed: whether an earlier run has applied `patch` already.
    """

    patch: JSON
    steps: tuple[int, ...]
    canary: bool
    final: int | None
    resumed: bool


def is_served(state: ServiceState, wanted: Wanted) -> bool:
    """Whether the spec asks for this release for all traffic."""
    ours = state.annotations.get(RELEASE) == wanted.release
    return ours and state.storage_uri == wanted.storage_uri and state.percent in (None, 100)


def plan_for(service: JSON, wanted: Wanted, settings: PromoteSpec) -> PromotionPlan:
    """The way from what a service serves now to a release.

    Raises:
        PromotionError: the service cannot take the release as it is, or not by these steps.
    """
    state = state_of(service)
    _refuse_foreign(service, state, wanted)
    resumed = (
        state.annotations.get(RELEASE) == wanted.release
        and state.storage_uri == wanted.storage_uri
        and ROLLBACK in state.annotations
    )
    # Before a first revision is rolled out, KServe has nothing to share the traffic with.
    canary = state.mode == "serverless" and bool(state.rolled_out)
    if settings.canary not in (None, (100,)) and not canary:
        raise PromotionError(_no_canary(settings.service, state))
    steps = settings.canary or (_DEFAULT_STEPS if canary else (100,))
    if resumed:
        before = state_of(patched(service, json.loads(state.annotations[ROLLBACK])))
        # From the first step on that is not yet behind it.
        steps = tuple(step for step in steps if step >= (state.percent or 0))
        if state.percent is None:
            steps = (100,)
    else:
        before = state
    return PromotionPlan(
        patch=_patch(service, wanted, settings, canary),
        steps=steps,
        canary=canary,
        final=100 if before.percent == 100 else None,
        resumed=resumed,
    )


def with_rollback(patch: JSON, current: JSON, preview: JSON) -> JSON:
    """The patch, and in an annotation the patch that undoes it.

    Args:
        current: the service before.
        preview: what the API makes of it by `patch`, with what webhooks add.
    """
    undo = merge_patch(_spec_and_annotations(preview), _spec_and_annotations(current))
    undo = patched(undo, {"metadata": {"annotations": {}}})
    annotations = undo["metadata"]["annotations"]
    # What others wrote into annotations meanwhile is theirs.
    for key in [key for key in annotations if key not in (RELEASE, DIGEST, ROLLBACK, TAG_ROUTING)]:
        del annotations[key]
    # One level: a record within a record would grow with every promotion.
    annotations[ROLLBACK] = None
    written = json.dumps(undo, separators=(",", ":"), sort_keys=True)
    return patched(patch, {"metadata": {"annotations": {ROLLBACK: written}}})


def rollback_of(service: JSON) -> JSON:
    """The patch that restores what was there before the promotion.

    Raises:
        PromotionError: no promotion is recorded in the service, or the record is damaged.
    """
    annotations = service["metadata"].get("annotations") or {}
    try:
        undo: Any = json.loads(annotations[ROLLBACK])
        if not isinstance(undo, dict) or not set(undo) <= {"spec", "metadata"}:
            raise ValueError("no patch")
    except KeyError:
        raise PromotionError(
            f"the InferenceService records no promotion (annotation {ROLLBACK}); there is nothing "
            "to roll back"
        ) from None
    except ValueError:
        raise PromotionError(
            f"annotation {ROLLBACK} of the InferenceService was altered; restore the service by "
            "hand"
        ) from None
    return undo


def traffic_patch(percent: int | None) -> JSON:
    """Nothing but another share of the traffic, which makes no new revision."""
    return {"spec": {"predictor": {"canaryTrafficPercent": percent}}}


def _patch(service: JSON, wanted: Wanted, settings: PromoteSpec, canary: bool) -> JSON:
    found = service["spec"]["predictor"]["model"]
    before = found.get("modelFormat", {}).get("name")
    model: JSON = {
        "storageUri": wanted.storage_uri,
        "modelFormat": {"name": MODEL_FORMAT},
        "protocolVersion": settings.protocol or found.get("protocolVersion") or "v1",
    }
    if before != MODEL_FORMAT:
        # Version and runtime were those of the other format.
        model["modelFormat"]["version"] = None
        model["runtime"] = None
    if settings.runtime:
        model["runtime"] = settings.runtime
    if "path" in found.get("storage", {}):
        # The key beside it names the credentials, also for a storageUri.
        model["storage"] = {"path": None}
    predictor: JSON = {"model": model}
    annotations = {RELEASE: wanted.release, DIGEST: wanted.digest}
    if canary:
        predictor["canaryTrafficPercent"] = 0
        annotations[TAG_ROUTING] = "true"
    return {"metadata": {"annotations": annotations}, "spec": {"predictor": predictor}}


def _refuse_foreign(service: JSON, state: ServiceState, wanted: Wanted) -> None:
    name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    predictor = service["spec"].get("predictor") or {}
    if "model" not in predictor:
        raise PromotionError(
            f"InferenceService {name} has no spec.predictor.model to promote into (found: "
            f"{', '.join(sorted(predictor)) or 'nothing'}); write it in the form of KServe 0.8 and "
            "later, see docs/promotion.md"
        )
    if service["spec"].get("canary"):
        raise PromotionError(
            f"InferenceService {name} has canaries of its own (spec.canary); finish or remove them "
            "first"
        )
    other = state.annotations.get(RELEASE)
    moving = state.percent is not None and state.percent < 100
    # At 0% without a record of ours everything is on the revision that was rolled out before.
    moving = moving and (state.percent != 0 or ROLLBACK in state.annotations)
    if moving and other != wanted.release:
        raise PromotionError(f"InferenceService {name} is {_under_way(state, other)}")


def _under_way(state: ServiceState, other: str | None) -> str:
    if other:
        version = other.rpartition("/")[2]
        return (
            f"at {state.percent}% of a promotion of {other}; finish it with --ref {version}, or "
            "undo it with --rollback"
        )
    if ROLLBACK in state.annotations:
        return "in the middle of being rolled back; finish that with --rollback"
    return (
        f"at {state.percent}% of a canary rollout by someone else; finish it, or set "
        "canaryTrafficPercent to 100"
    )


def _no_canary(service: str, state: ServiceState) -> str:
    if state.mode == "raw":
        reason = "is a raw deployment, in which KServe ignores canaryTrafficPercent"
    elif state.mode == "serverless":
        reason = "has no revision that is rolled out, so there is nothing to share traffic with"
    else:
        reason = "does not say how it is deployed (status.deploymentMode)"
    return f"InferenceService {service} {reason}; promote in one step, with --canary 100"


def _spec_and_annotations(service: JSON) -> JSON:
    annotations = service["metadata"].get("annotations") or {}
    return {"metadata": {"annotations": dict(annotations)}, "spec": service["spec"]}


JSON = dict[str, Any]


def merge_patch(current: JSON, target: JSON) -> JSON:
    """The smallest merge patch that turns `current` into `target`.

    Args:
        current, target: JSON objects without null values, which a merge patch cannot write.
    """
    patch: JSON = {key: None for key in current if key not in target}
    for key, wanted in target.items():
        found = current.get(key)
        if isinstance(found, dict) and isinstance(wanted, dict):
            if below := merge_patch(found, wanted):
                patch[key] = below
        elif key not in current or found != wanted or type(found) is not type(wanted):
            patch[key] = wanted
    return patch


def patched(current: JSON, patch: JSON) -> JSON:
    """What a merge patch makes of an object; neither is changed."""
    result = dict(current)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = patched(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    return result
