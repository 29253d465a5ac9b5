"""Publish a model that passed the gate as an immutable release in object storage."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
from pydantic import ValidationError

from lrf_core.artifacts import (
    MODEL_FILE,
    Lineage,
    Override,
    Release,
    ReleaseFile,
    Verdict,
    digest_of,
)
from lrf_core.errors import ArtifactError, LrfError, PublishRefusedError, SpecError, StorageError
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.progress import track
from lrf_core.stages.override import refuse_altered, refuse_unless_overridden
from lrf_core.storage import (
    DamagedObjectError,
    MissingObjectError,
    Store,
    open_store,
    sha256_of,
)

_logger = logging.getLogger("lrf")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_ATTACHMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def publish(
    model: keras.Model,
    verdict: Verdict,
    to: str,
    *,
    name: str,
    attachments: Mapping[str, Path],
    override: Override | None = None,
) -> Release:
    """Write the model, its attachments and last its manifest to `<name>/<version>/` in a store.

    The version is made from the name and the model's content: publishing the same content again
    changes nothing and returns the Release that is there. Before the manifest is written, every
    file is read back and compared, and the model is loaded from what was stored. A failure before
    that leaves no manifest, and what was written is removed where the store still allows it.

    Args:
        model: the candidate that the verdict is about.
        verdict: the gate's answer for exactly this model.
        to: where to, see `lrf_core.storage.open_store`.
        name: of the released model: a-z, 0-9, ".", "_" and "-"; upper case is lowered.
        attachments: file name in the release to the file to copy.
        override: a person's decision on this verdict, see `override_of`: kept in the manifest and
            as `override.json`, and logged as a warning.

    Raises:
        PublishRefusedError: the verdict did not pass and nobody overrode that, was altered, or is
            about another model.
        SpecError: the name cannot be used.
        ArtifactError: an attachment is missing or its name cannot be used, or the stored model
            does not read back as the one that was published.
        StorageError: the store cannot be reached or written; no manifest is there then.
    """
    digest = model_digest(model)
    _refuse_foreign(verdict, digest)
    refuse_altered(verdict)
    if override is None:
        _refuse_unless_passed(verdict)
    else:
        refuse_unless_overridden(verdict, override)
        _warn_of(override)
    name = _release_name(name)
    version = f"v-{digest_of({'name': name, 'model': digest})[:12]}"
    for attachment, source in attachments.items():
        _check_attachment(attachment, source)
    store = open_store(to)
    store.check()
    existing = _published(store, name, version)
    if existing:
        return _same(store, existing, digest)
    with tempfile.TemporaryDirectory(prefix="lrf-publish-") as scratch:
        sources = {MODEL_FILE: _save_timeless(model, Path(scratch)), **attachments}
        if override:
            sources[Override.file_name] = override.save(Path(scratch) / Override.file_name)
        release = Release(
            lineage=Lineage(
                inputs={
                    "model": digest,
                    "verdict": verdict.digest(),
                    "baseline": verdict.baseline_digest,
                },
                settings={"name": name},
                parent=verdict.baseline_digest,
            ),
            name=name,
            version=version,
            location=store.url(f"{name}/{version}"),
            model_digest=digest,
            verdict_digest=verdict.digest(),
            files=tuple(_release_file(path, source) for path, source in sources.items()),
            override=override,
        )
        return _write(store, release, sources)


def read_release(to: str, name: str, version: str) -> Release:
    """The manifest of a published version.

    Raises:
        ArtifactError: no such release, or its manifest is damaged.
        StorageError: the store cannot be read.
    """
    release = _published(open_store(to), name, version)
    if release is None:
        raise ArtifactError(f"no release {name}/{version} in {to}; check the name and the version")
    return release


def verify_release(store: Store, release: Release) -> list[str]:
    """Read every file of a release back; returns the paths that are missing or damaged."""
    damaged = []
    with tempfile.TemporaryDirectory(prefix="lrf-verify-") as scratch:
        for file in track(release.files, "verify release"):
            try:
                store.get_file(_key(release, file.path), Path(scratch) / "file", file.sha256)
            except (MissingObjectError, DamagedObjectError):
                damaged.append(file.path)
    return damaged


def _refuse_foreign(verdict: Verdict, digest: str) -> None:
    if verdict.candidate_digest != digest:
        raise PublishRefusedError(
            f"the verdict is about model {verdict.candidate_digest[:12]}, the model to publish is "
            f"{digest[:12]}; validate the model that is to be published"
        )


def _refuse_unless_passed(verdict: Verdict) -> None:
    if not verdict.passed:
        failed = ", ".join(check.name for check in verdict.failed())
        raise PublishRefusedError(
            f"model {verdict.candidate_digest[:12]} did not pass the gate (failed: {failed}); "
            "nothing is published. Lower the goal, fine-tune longer, or change the gate's limits"
        )


def _warn_of(override: Override) -> None:
    _logger.warning(
        "model %s did not pass the gate (failed: %s) and is published all the same, by decision "
        "of %s: %s",
        override.candidate_digest[:12],
        ", ".join(check.name for check in override.checks),
        override.by,
        override.reason,
    )


def _release_name(name: str) -> str:
    lowered = name.lower()
    if not _NAME.fullmatch(lowered):
        raise SpecError(
            f"release name {name!r:.140} is not usable; start with a letter or digit and use only "
            "a-z, 0-9, '.', '_' and '-', at most 128"
        )
    if lowered != name:
        _logger.info("release name '%s' is written '%s'", name, lowered)
    return lowered


def _check_attachment(attachment: str, source: Path) -> None:
    reserved = (MODEL_FILE, Release.file_name, Override.file_name)
    if not _ATTACHMENT.fullmatch(attachment) or attachment in reserved:
        raise ArtifactError(
            f"attachment name {attachment!r:.140} is not usable; use letters, digits, '.', '_' and "
            f"'-', and none of {', '.join(reserved)}"
        )
    if not source.is_file():
        raise ArtifactError(f"attachment {attachment}: no file at {source}; write it first")


def _save_timeless(model: keras.Model, folder: Path) -> Path:
    """Write `model.keras` so that the same content gives the same bytes.

    A retried publish that overlaps with the first one then replaces files by equal files.
    """
    saved = save_model(model, folder / "saved.keras")
    target = folder / MODEL_FILE
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w") as copy:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                metadata.pop("date_saved", None)
                content = json.dumps(metadata, sort_keys=True).encode()
            copy.writestr(zipfile.ZipInfo(name), content)
    return target


def _release_file(path: str, source: Path) -> ReleaseFile:
    found = sha256_of(source)
    return ReleaseFile(path=path, size=found.size, sha256=found.sha256 or "")


def _key(release: Release, path: str) -> str:
    return f"{release.name}/{release.version}/{path}"


def _published(store: Store, name: str, version: str) -> Release | None:
    key = f"{name}/{version}/{Release.file_name}"
    try:
        return Release.model_validate_json(store.get(key))
    except MissingObjectError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(
            f"{store.url(key)} is no Release of this version: {first['msg']}; delete that version "
            "and publish it again"
        ) from None


def _same(store: Store, existing: Release, digest: str) -> Release:
    """The Release that is there already, unless it is not what it claims to be."""
    damaged = verify_release(store, existing)
    if damaged or existing.model_digest != digest:
        found = f"damaged: {', '.join(damaged)}" if damaged else "of another model"
        raise ArtifactError(
            f"{existing.location} is there already, but {found}; delete it and publish again"
        )
    _logger.info("%s is there already with the same model; nothing written", existing.location)
    return existing


def _write(store: Store, release: Release, sources: Mapping[str, Path]) -> Release:
    """Files, then proof that they can be read back, then the manifest."""
    manifest = _key(release, Release.file_name)
    try:
        _remove_strays(store, release)
        for path, source in track(sources.items(), "publish"):
            # Another publisher of the same model may have finished; its files are not ours.
            if store.stat(manifest):
                break
            store.put_file(_key(release, path), source)
        else:
            _read_back(store, release)
            content = release.model_dump_json(indent=2).encode() + b"\n"
            if store.put_if_absent(manifest, content):
                _logger.info("published %s", release.location)
                return release
    except BaseException:
        _remove_unfinished(store, release)
        raise
    winner = _published(store, release.name, release.version)
    if winner is None:
        raise StorageError(f"{release.location} was removed while it was published; run it again")
    return _same(store, winner, release.model_digest)


def _read_back(store: Store, release: Release) -> None:
    with tempfile.TemporaryDirectory(prefix="lrf-publish-") as scratch:
        for file in track(release.files, "read back"):
            store.get_file(_key(release, file.path), Path(scratch) / file.path, file.sha256)
        stored = load_model(Path(scratch) / MODEL_FILE)
    if model_digest(stored) != release.model_digest:
        raise ArtifactError(
            f"{release.location}: the stored model is not the one that was judged; its layers do "
            "not survive saving and loading"
        )


def _remove_strays(store: Store, release: Release) -> None:
    """Remove what a publish that was killed left behind and this one does not overwrite."""
    ours = {_key(release, file.path) for file in release.files}
    for key in list(store.list(_key(release, ""))):
        if key not in ours and key != _key(release, Release.file_name):
            _logger.info("removing %s, left by an unfinished publish", store.url(key))
            store.delete(key)


def _remove_unfinished(store: Store, release: Release) -> None:
    """Remove what was written, unless a manifest, of whoever, says that it is a release."""
    try:
        if store.stat(_key(release, Release.file_name)):
            return
        for file in release.files:
            store.delete(_key(release, file.path))
    except LrfError as error:
        _logger.warning("%s holds an unfinished release: %s", release.location, error)
