"""Which releases may be served: whole, judged, passed or overridden, and signed if asked for."""

from __future__ import annotations

import logging
from pathlib import Path

from lrf_core.artifacts import MODEL_FILE, Release, Verdict
from lrf_core.errors import (
    ArtifactError,
    PublishRefusedError,
    StorageError,
    UnreachableStorageError,
)
from lrf_core.files.scratch import scratch_folder
from lrf_core.models.load import load_model, model_digest
from lrf_core.releases import verify_release, version_of
from lrf_core.releases.answers import ANSWERS_FILE, SampleAnswers, sample_answers
from lrf_core.releases.layout import SAVED_MODEL, file_key
from lrf_core.releases.signing import check_release_signature
from lrf_core.spec import GateSpec, PromoteSpec
from lrf_core.stages.override import check_override_matches
from lrf_core.stages.refuse import (
    check_evidence_is_there,
    check_limits_match,
    check_verdict_follows_from_numbers,
)
from lrf_core.storage import Store

_logger = logging.getLogger("lrf")


def check_release(
    store: Store, release: Release, settings: PromoteSpec, gate: GateSpec | None = None
) -> SampleAnswers:
    """Refuse a release that may not be served; its recorded answers.

    The bytes in the store are compared with the manifest and its signature before anything else is
    read; then the model with the verdict, and the verdict with its own numbers and the manifest.

    Args:
        gate: the limits that the verdict must have been made by; None if nobody asked for any.

    Raises:
        PublishRefusedError: it is damaged, not signed as asked, or its verdict is missing, failed,
            of another model, of other limits, altered, or not sealed with the key that
            LRF_VERDICT_KEY_FILE names; or it is overridden and `allow_override` is not set.
        SpecError: that key cannot be used.
        StorageError: the store cannot be read.
    """
    where = f"release {release.name}/{release.version}"
    if damaged := verify_release(store, release):
        raise PublishRefusedError(f"{where} is damaged: {', '.join(damaged)}; it is not promoted")
    if settings.public_key:
        check_release_signature(store, release, settings.public_key)
    version = version_of(release.name, release.model_digest)
    if version != release.version:
        raise PublishRefusedError(
            f"{where} is not the version of its model ({version}); its manifest was altered"
        )
    if not any(file.path.startswith(f"{SAVED_MODEL}/") for file in release.files):
        raise PublishRefusedError(
            f"{where} holds no {SAVED_MODEL}/ to serve; publish it again with this version of lrf"
        )
    _refuse_without(release, where, Verdict.file_name, MODEL_FILE, ANSWERS_FILE)
    with scratch_folder("promote") as folder:
        verdict, model = (
            _fetched(store, release, path, folder) for path in (Verdict.file_name, MODEL_FILE)
        )
        judged = _read_verdict(verdict, where)
        _check_verdict(release, judged, settings, where)
        check_limits_match(judged, gate)
        _check_model(release, model, where)
    return sample_answers(store, release)


def _refuse_without(release: Release, where: str, *paths: str) -> None:
    listed = {file.path for file in release.files}
    for path in paths:
        if path not in listed:
            raise PublishRefusedError(
                f"{where} holds no {path}; publish it again with this version of lrf"
            )


def _fetched(store: Store, release: Release, path: str, folder: Path) -> Path:
    sha256 = next(file.sha256 for file in release.files if file.path == path)
    target = folder / path
    try:
        store.get_file(file_key(release.name, release.version, path), target, sha256)
    except UnreachableStorageError:
        raise  # it may answer later; nothing is known of the release
    except StorageError as error:
        raise PublishRefusedError(f"{path} of the release cannot be read: {error}") from None
    return target


def _read_verdict(path: Path, where: str) -> Verdict:
    try:
        return Verdict.load(path)
    except ArtifactError:
        raise PublishRefusedError(f"{path.name} of {where} is no verdict") from None
    except PublishRefusedError as error:
        reason = str(error).replace(str(path), f"of {where}")
        raise PublishRefusedError(reason) from None


def _check_verdict(release: Release, verdict: Verdict, settings: PromoteSpec, where: str) -> None:
    check_evidence_is_there(verdict)
    if verdict.digest() != release.verdict_digest:
        raise PublishRefusedError(
            f"the verdict of {where} is {verdict.digest()[:12]}, its manifest names "
            f"{release.verdict_digest[:12]}; one of them was altered"
        )
    if verdict.candidate_digest != release.model_digest:
        raise PublishRefusedError(
            f"the verdict of {where} is about model {verdict.candidate_digest[:12]}, the release "
            f"holds {release.model_digest[:12]}"
        )
    check_verdict_follows_from_numbers(verdict)
    if verdict.passed:
        return
    failed = ", ".join(check.name for check in verdict.failed())
    if release.override is None:
        raise PublishRefusedError(f"{where} did not pass the gate (failed: {failed})")
    check_override_matches(verdict, release.override)
    if not settings.allow_override:
        raise PublishRefusedError(
            f"{where} did not pass the gate (failed: {failed}) and was published by decision of "
            f"{release.override.by}: {release.override.reason}; to serve it all the same, give "
            "--allow-override"
        )
    _logger.warning(
        "%s did not pass the gate (failed: %s); it is promoted by decision of %s: %s",
        where,
        failed,
        release.override.by,
        release.override.reason,
    )


def _check_model(release: Release, file: Path, where: str) -> None:
    found = model_digest(load_model(file))
    if found != release.model_digest:
        raise PublishRefusedError(
            f"the model of {where} is {found[:12]}, the one that was judged "
            f"{release.model_digest[:12]}"
        )
