"""The small interface to model registries, and what every one of them is told of a release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lrf_core.artifacts import Release
from lrf_core.errors import EXIT_FAILURE, BadInputError

# What is written into registries is named so that nobody else's tags are touched.
VERSION = "lrf.version"
MODEL_DIGEST = "lrf.model_digest"
RUN_ID = "lrf.run_id"
ALIAS = "lrf.alias."


class RegistryError(BadInputError):
    """A model registry cannot be reached, refuses what it is told, or holds something else."""


class UnreachableRegistryError(RegistryError):
    """The registry did not answer; the same call may succeed later."""

    exit_code = EXIT_FAILURE


@dataclass(frozen=True)
class Registration:
    """A release as a registry has it.

    Attributes:
        registry: the registry's kind: "bucket", "kubeflow" or "mlflow".
        name, version: of the release; version is its content address `v-...`.
        number: of the release in its store, from 1.
        id: the registry's own name for this version.
        location: where the release's files are.
        run_id: the pipeline run that published it, None if nobody said.
        aliases: those that point at this version, sorted.
    """

    registry: str
    name: str
    version: str
    number: int
    id: str
    location: str
    run_id: str | None = None
    aliases: tuple[str, ...] = ()


class Registry(Protocol):
    """Where people and platforms look for models. Every method raises RegistryError when the
    registry cannot be reached in bounded time, refuses the credentials, or answers with an error.
    """

    def check(self) -> None:
        """Raise RegistryError unless the registry answers and takes the credentials."""

    def register(self, release: Release, number: int, *, run_id: str | None = None) -> Registration:
        """Make the release known; one that is known already stays as it is.

        What an earlier call that was interrupted left half done is completed. Several calls at
        once for one release end with one version.

        Args:
            number: of the release in its store, see `lrf_core.releases`.
            run_id: the pipeline run that published it; the first one that registers is kept.

        Raises:
            RegistryError: also when another model is registered under this name and version.
        """

    def set_alias(self, release: Release, number: int, alias: str) -> None:
        """Let an alias point at this release, and no longer at another one.

        Raises:
            RegistryError: also when the release is not registered.
        """

    def find(self, name: str, version: str) -> Registration | None:
        """The registration of a release; None if there is none, or only half of one."""


def properties(release: Release, number: int, run_id: str | None) -> dict[str, str]:
    """What identifies a release and how it came to be, by the names used in registries."""
    optional = {
        "lrf.baseline_digest": release.lineage.parent,
        "lrf.override_by": release.override.by if release.override else None,
        "lrf.signed_by": release.signed_by,
        RUN_ID: run_id,
    }
    return {
        VERSION: release.version,
        "lrf.number": str(number),
        "lrf.location": release.location,
        MODEL_DIGEST: release.model_digest,
        "lrf.verdict_digest": release.verdict_digest,
        "lrf.published": release.lineage.created,
        **{name: value for name, value in optional.items() if value},
    }


def metrics(release: Release) -> dict[str, float]:
    """What the release changed: accuracies in percent, parameters, MACs and weights in bytes."""
    values = release.summary.model_dump()
    return {name: float(value) for name, value in values.items() if value is not None}


def refuse_another_model(where: str, release: Release, digest: str | None) -> None:
    """Raise RegistryError if the digest that a registry has is not the release's."""
    if digest not in (None, release.model_digest):
        raise RegistryError(
            f"{where} has {release.name} {release.version} with model {digest[:12]}, the release "
            f"has {release.model_digest[:12]}; delete that version there and register again"
        )


def not_registered(where: str, release: Release) -> RegistryError:
    """The error of an alias for a release that the registry does not have."""
    return RegistryError(
        f"{where} does not have {release.name} {release.version}, so no alias can point at it; "
        "publish it again to register it"
    )
