"""Publish a model that passed the gate as an immutable release in object storage."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras

from lrf_core import telemetry
from lrf_core.artifacts import (
    MODEL_FILE,
    Lineage,
    Override,
    Release,
    ReleaseFile,
    ReleaseSummary,
    Verdict,
)
from lrf_core.errors import ArtifactError
from lrf_core.files.scratch import scratch_folder
from lrf_core.models.load import load_model, model_digest
from lrf_core.registry import open_registry
from lrf_core.releases import (
    ReleaseDraft,
    WriteResult,
    release_name,
    resolve,
    verify_release,
    version_of,
    write_release,
)
from lrf_core.releases.contents import LITERT_FILE, check_onnx_installed, model_files
from lrf_core.releases.index import LATEST
from lrf_core.releases.sbom import SBOM_FILE, write_sbom
from lrf_core.releases.signing import SigningKey, check_signature, fingerprint_of, sign, signing_key
from lrf_core.spec import GateSpec, PublishSpec
from lrf_core.stages.attachments import check_attachments
from lrf_core.stages.override import check_override_matches
from lrf_core.stages.refuse import (
    check_limits_match,
    check_passed,
    check_verdict_follows_from_numbers,
    check_verdict_matches_model,
)
from lrf_core.storage import Store, open_store, sha256_of

__all__ = ["publish", "read_release", "verify_release"]

_logger = logging.getLogger("lrf")

_LITERT_CHECK = "litert_same_answers"


def publish(
    model: keras.Model,
    verdict: Verdict,
    to: str,
    *,
    name: str,
    attachments: Mapping[str, Path],
    override: Override | None = None,
    gate: GateSpec | None = None,
    settings: PublishSpec | None = None,
    run_id: str | None = None,
) -> Release:
    """Write a release, make it the latest of its name, and register it.

    The version follows from the name and the model's content: publishing the same content again
    changes nothing and returns the Release that is there. A publisher may be killed at any moment:
    readers see the whole release or none, and the next run completes it. See
    `lrf_core.releases.write` for how.

    Args:
        model: the candidate that the verdict is about.
        verdict: the gate's answer for exactly this model.
        to: where to, see `lrf_core.storage.open_store`.
        name: of the released model: a-z, 0-9, ".", "_" and "-"; upper case is lowered.
        attachments: file name in the release to the file to copy, see `check_attachments`. The
            verdict is added.
        override: a user's decision on this verdict, see `override_of`: kept in the manifest and
            as `override.json`, and logged as a warning.
        gate: the limits that the verdict must have been made by, `Spec.effective_gate()`; None
            where nobody asked for any.
        settings: formats, keys and registries; `to`, `name` and `override` in it are not read.
        run_id: of the pipeline run, for the registries.

    Raises:
        PublishRefusedError: the verdict did not pass and nobody overrode that, does not follow from
            its own numbers, is about another model, or was made by other limits; an attachment is
            of another run; or the release that is there is not signed as asked for.
        SpecError: the name or a key cannot be used, or an extra is missing.
        ArtifactError: an attachment is missing or its name cannot be used, the model does not
            survive being stored, or the release that is there is damaged beyond repair.
        ExportError: the model cannot be converted.
        StorageError: the store cannot be reached or written; run it again.
        RegistryError: a registry cannot be reached, or refuses; the release is complete where that
            is said only after it was written, and running it again registers it.
    """
    settings = settings or PublishSpec()
    digest = model_digest(model)
    check_verdict_matches_model(verdict, digest)
    check_verdict_follows_from_numbers(verdict)
    check_limits_match(verdict, gate)
    if override is None:
        check_passed(verdict)
    else:
        check_override_matches(verdict, override)
        _warn_of(override)
    name = release_name(name)
    check_attachments(attachments, verdict)
    if settings.onnx:
        check_onnx_installed()
    key = signing_key(settings.signing_key)
    if settings.public_key:
        fingerprint_of(settings.public_key)
    store = open_store(to)
    store.check()
    registries = [open_registry(uri, store) for uri in settings.registries]
    for registry in registries:
        registry.check()
    version = version_of(name, digest)
    with scratch_folder("publish") as scratch:
        making = _Making(
            model,
            verdict,
            store,
            name,
            version,
            attachments,
            override,
            settings,
            key,
            scratch,
        )
        written = write_release(store, name, version, making.propose, making.verify)
    _tell(written)
    # After the index was moved: no registry names a release that readers do not see.
    for registry in registries:
        registry.register(written.release, written.number, run_id=run_id)
        if LATEST in resolve(store, name, version).aliases:
            registry.set_alias(written.release, written.number, LATEST)
    return written.release


def read_release(to: str, name: str, version: str) -> Release:
    """The manifest of a published version.

    Raises:
        ArtifactError: no such release, or its manifest is damaged.
        StorageError: the store cannot be read.
    """
    return resolve(open_store(to), name, version).release


@dataclass(frozen=True)
class _Making:
    """What a release is made from, and what it must be once it is stored."""

    model: keras.Model
    verdict: Verdict
    store: Store
    name: str
    version: str
    attachments: Mapping[str, Path]
    override: Override | None
    settings: PublishSpec
    key: SigningKey | None
    scratch: Path

    def propose(self) -> ReleaseDraft:
        """All files, the manifest, and the signature over them."""
        folder = self.scratch / "release"
        litert = self.override is None or _LITERT_CHECK not in {
            check.name for check in self.override.checks
        }
        if not litert:
            _logger.warning("the model did not pass %s: no %s", _LITERT_CHECK, LITERT_FILE)
        model_files(self.model, folder, litert=litert, onnx=self.settings.onnx)
        for path, source in self.attachments.items():
            shutil.copyfile(source, folder / path)
        self.verdict.save(folder / Verdict.file_name)
        if self.override:
            self.override.save(folder / Override.file_name)
        write_sbom(
            folder / SBOM_FILE,
            name=self.name,
            version=self.version,
            model_digest=self.verdict.candidate_digest,
            files=_files_in(folder),
        )
        files = _files_in(folder)
        release = self._release(files)
        manifest = release.model_dump_json(indent=2).encode() + b"\n"
        sources = {file.path: folder / file.path for file in files}
        signature = None
        if self.key:
            (folder / Release.file_name).write_bytes(manifest)
            signature = sign(folder, self.key)
        return ReleaseDraft(release, manifest, sources, signature)

    def verify(self, release: Release, folder: Path) -> None:
        """Raise unless what was stored is the model that was judged, signed as asked for.

        The signature comes first: no file is opened that is not what was signed.
        """
        if self.key:
            public = self.scratch / "public.pem"
            public.write_bytes(self.key.public)
            check_signature(folder, release.signed_by, str(public), release.location)
        if self.settings.public_key:
            check_signature(folder, release.signed_by, self.settings.public_key, release.location)
        if release.model_digest != self.verdict.candidate_digest:
            raise ArtifactError(f"{release.location} is of another model; nothing is published")
        if model_digest(load_model(folder / MODEL_FILE)) != release.model_digest:
            raise ArtifactError(
                f"{release.location}: the stored model is not the one that was judged; its layers "
                "do not survive saving and loading"
            )

    def _release(self, files: tuple[ReleaseFile, ...]) -> Release:
        digest, verdict = self.verdict.candidate_digest, self.verdict
        return Release(
            lineage=Lineage(
                inputs={
                    "model": digest,
                    "verdict": verdict.digest(),
                    "baseline": verdict.baseline_digest,
                },
                settings={"name": self.name},
                parent=verdict.baseline_digest,
            ),
            name=self.name,
            version=self.version,
            location=self.store.url(f"{self.name}/{self.version}"),
            model_digest=digest,
            verdict_digest=verdict.digest(),
            files=files,
            summary=ReleaseSummary.of(verdict),
            signed_by=self.key.fingerprint if self.key else None,
            override=self.override,
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


def _files_in(folder: Path) -> tuple[ReleaseFile, ...]:
    found = []
    for source in sorted(file for file in folder.rglob("*") if file.is_file()):
        info = sha256_of(source)
        path = source.relative_to(folder).as_posix()
        found.append(ReleaseFile(path=path, size=info.size, sha256=info.sha256 or ""))
    return tuple(found)


def _tell(written: WriteResult) -> None:
    release = written.release
    if written.new:
        telemetry.count_release(release.name)
        _logger.info("published %s as number %d", release.location, written.number)
    else:
        _logger.info(
            "%s is there already with the same model, as number %d; %s",
            release.location,
            written.number,
            "damage repaired" if written.repaired else "nothing written",
        )
