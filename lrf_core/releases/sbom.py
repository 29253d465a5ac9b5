"""What a release is made of and by: a CycloneDX 1.6 bill of materials."""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Iterable
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from lrf_core.artifacts import ReleaseFile
from lrf_core.files.atomic import write_atomically

SBOM_FILE = "sbom.json"


def write_sbom(
    target: Path, *, name: str, version: str, model_digest: str, files: Iterable[ReleaseFile]
) -> Path:
    """Write the model with its files, and every distribution installed where it is published.

    Args:
        files: of the release, so far.

    Raises:
        ArtifactError: the file cannot be written.
    """
    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=version,
        bom_ref="model",
        properties=[Property(name="lrf:model_digest", value=f"sha256:{model_digest}")],
        components=[
            Component(
                type=ComponentType.FILE,
                name=file.path,
                bom_ref=f"file:{file.path}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
            )
            for file in files
        ],
    )
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"{name}/{version}"),
        components=(installed := _installed()),
    )
    bom.metadata.component = model
    bom.register_dependency(model, installed)
    write_atomically(target, JsonV1Dot6(bom).output_as_string(indent=2).encode() + b"\n")
    return target


def _installed() -> list[Component]:
    found = {
        distribution.name.lower().replace("_", "-"): distribution.version
        for distribution in importlib.metadata.distributions()
        if distribution.name  # a folder that was left half removed has none
    }
    return [
        Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=f"pypi:{name}",
            purl=PackageURL("pypi", None, name, version),
        )
        for name, version in sorted(found.items())
    ]
