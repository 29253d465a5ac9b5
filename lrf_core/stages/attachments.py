"""What a release carries beside its model: files with usable names, of the run that was judged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lrf_core.artifacts import (
    LINEAGE_FILE,
    MODEL_FILE,
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Override,
    Plan,
    Release,
    Verdict,
)
from lrf_core.errors import ArtifactError, PublishRefusedError
from lrf_core.releases.answers import ANSWERS_FILE
from lrf_core.releases.contents import LITERT_FILE, ONNX_FILE
from lrf_core.releases.layout import INTENT_FILE, SAVED_MODEL, SIGNATURE_FILE
from lrf_core.releases.sbom import SBOM_FILE

_ATTACHMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RESERVED = (
    MODEL_FILE,
    SAVED_MODEL,
    LITERT_FILE,
    ONNX_FILE,
    ANSWERS_FILE,
    SBOM_FILE,
    Override.file_name,
    Release.file_name,
    SIGNATURE_FILE,
    INTENT_FILE,
)
_READ = (Analysis, DesignSpace, Plan, FinetuneRecord, Verdict)


def check_attachments(attachments: Mapping[str, Path], verdict: Verdict) -> None:
    """Refuse files that cannot be attached, or are of another run than the verdict.

    The artifacts of a run are known by their names; each must be about the baseline or the
    candidate of the verdict, and stand in an attached lineage as it stands in itself.

    Args:
        attachments: file name in the release to the file.

    Raises:
        ArtifactError: a name cannot be used, a file is missing, or is not what its name says.
        PublishRefusedError: an artifact is of another run, or is another verdict.
    """
    for name, source in attachments.items():
        _check_file(name, source)
    found = {
        kind.__name__: kind.load(attachments[kind.file_name])
        for kind in _READ
        if kind.file_name in attachments
    }
    for name, reason in _strangers(found, verdict):
        raise PublishRefusedError(
            f"{attachments[name]} {reason}; nothing is published. Attach the files of the run that "
            "was judged, or validate again"
        )
    if LINEAGE_FILE in attachments:
        _check_lineage(attachments[LINEAGE_FILE], found)


def _check_file(name: str, source: Path) -> None:
    if not _ATTACHMENT.fullmatch(name) or name in _RESERVED:
        raise ArtifactError(
            f"attachment name {name!r:.140} is not usable; use letters, digits, '.', '_' and "
            f"'-', and none of {', '.join(_RESERVED)}"
        )
    if not source.is_file():
        raise ArtifactError(f"attachment {name}: no file at {source}; write it first")


def _strangers(found: Mapping[str, Any], verdict: Verdict) -> Iterator[tuple[str, str]]:
    """File name of each artifact that is of another run, and in what way."""
    for kind in (Analysis, DesignSpace, Plan):
        artifact = found.get(kind.__name__)
        if artifact is not None and artifact.model_digest != verdict.baseline_digest:
            yield (
                kind.file_name,
                f"is about model {artifact.model_digest[:12]}, but the verdict compares with "
                f"baseline {verdict.baseline_digest[:12]}",
            )
    plan, training = found.get(Plan.__name__), found.get(FinetuneRecord.__name__)
    if training is not None and training.after_digest != verdict.candidate_digest:
        yield (
            FinetuneRecord.file_name,
            f"led to model {training.after_digest[:12]}, but the verdict is about "
            f"{verdict.candidate_digest[:12]}",
        )
    if plan and training and plan.factorized_digest != training.before_digest:
        yield (
            Plan.file_name,
            f"led to model {plan.factorized_digest[:12]}, but {training.before_digest[:12]} was "
            "fine-tuned into the candidate",
        )
    attached = found.get(Verdict.__name__)
    if attached is not None and attached.digest() != verdict.digest():
        yield Verdict.file_name, "is not the verdict to publish by"


def _check_lineage(source: Path, found: Mapping[str, Any]) -> None:
    try:
        entries = {entry["artifact"]: entry for entry in json.loads(source.read_bytes())}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"{source} is no lineage of a run: {error}") from None
    for name, artifact in found.items():
        own = artifact.lineage.model_dump(mode="json")
        entry = entries.get(name, {})
        if {key: entry.get(key) for key in own} != own:
            raise PublishRefusedError(
                f"{source} has another lineage of the {name} than the {name} itself; nothing is "
                "published. Validate again"
            )
