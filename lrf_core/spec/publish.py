"""Where a model that passed goes, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from lrf_core.errors import SpecError
from lrf_core.spec.release_name import release_name
from lrf_core.spec.section import Section


def _usable(name: str) -> str:
    try:
        release_name(name)
    except SpecError as error:
        raise ValueError(str(error)) from None
    return name


class OverrideSpec(Section):
    """A user's decision to publish one model although checks of the gate failed."""

    by: str = Field(min_length=1, description="Who decides.")
    reason: str = Field(min_length=1, description="Why, for those who meet the release later.")
    checks: tuple[str, ...] = Field(
        min_length=1, description="Names of the checks that may fail; no other may."
    )
    model: str = Field(
        pattern=r"^[0-9a-f]{12,64}$",
        description="The candidate decided on: candidate_digest in its verdict, at least the first "
        "12 digits. It lets no other model through.",
    )


class PublishSpec(Section):
    """Where a model that passed goes, and how."""

    to: str | None = Field(
        None, description="file:///dir or s3://bucket/prefix; default: release/ in the output."
    )
    name: Annotated[str, AfterValidator(_usable)] | None = Field(
        None,
        description="Name of the released model; default: the model's. Not a number, an alias, or "
        "the form of a version.",
    )
    onnx: bool = Field(False, description="Release an ONNX file too; needs the extra onnx.")
    signing_key: str | None = Field(
        None,
        description="A PEM file with a private elliptic-curve key to sign releases with; default: "
        "the file that LRF_SIGNING_KEY names, if any. Its password is in LRF_SIGNING_KEY_PASSWORD.",
    )
    public_key: str | None = Field(
        None, description="A PEM file: releases must be signed with the private half of this key."
    )
    registries: tuple[Annotated[str, Field(pattern="^[^@]+$")], ...] = Field(
        (),
        description="Model registries to register in: bucket, kubeflow+https://host:port, "
        "mlflow+https://host:port. Credentials come from the environment or mounted files.",
    )
    override: OverrideSpec | None = Field(
        None,
        description="Publish one model that did not pass. Obeyed by `lrf compress` and the publish "
        "component; the pipeline's graph reaches that only after a pass.",
    )
