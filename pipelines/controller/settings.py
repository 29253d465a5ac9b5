"""Settings of the controller: one YAML file, and the named specs of models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from lrf_core.errors import SpecError
from lrf_core.spec import make_spec, read_spec
from lrf_core.spec.problems import problems_in
from lrf_core.spec.section import Duration, Section
from lrf_core.storage import open_store

_SPEC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# The controller fills these in for every run.
_OWN_SETTINGS = ("model", "weights", "out")


Period = Annotated[Duration, Field(gt=0)]


class SourceSettings(Section):
    """A place to watch for models that ask for compression."""

    uri: str = Field(
        description="s3://bucket/prefix, file:///dir, kubeflow+http(s)://host:port or "
        "mlflow+http(s)://host:port."
    )
    spec: str | None = Field(
        None, description="Of a bucket or folder: the spec for models that name none."
    )


class PipelinesSettings(Section):
    """The Kubeflow Pipelines that the runs are started in."""

    host: str = Field(description="Address of the API.")
    namespace: str | None = Field(None, description="Where there are several.")
    experiment: str = Field("lrf", description="Runs are filed under it.")
    root: str | None = Field(
        None,
        description="s3://bucket/prefix for what the steps pass on. With it, the controller reads "
        "verdict and release of a run there.",
    )


class LeaseSettings(Section):
    """The Lease that elects one of several controllers."""

    name: str = "lrf-controller"
    namespace: str | None = Field(None, description="Default: the controller's own.")
    duration: Period = 15.0


class ControllerSettings(Section):
    """The whole file; durations are written 500ms, 30s, 5m or 1h, and are seconds here."""

    specs: Path = Field(description="Folder of <name>.yaml, each a spec without `model`.")
    state: str = Field(description="s3://bucket/prefix or file:///dir: all that is remembered.")
    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    poll: Period = 30.0
    parallel: int = Field(2, ge=1, description="Runs at once.")
    attempts: int = Field(3, ge=1, description="How often a run that failed is started in all.")
    backoff: Period = Field(60.0, description="Before the second attempt; doubled each time.")
    pipelines: PipelinesSettings | None = None
    lease: LeaseSettings | None = Field(None, description="None: no election.")
    listen: str = Field("0.0.0.0:8080", pattern=r"^.+:\d+$")

    def address(self) -> tuple[str, int]:
        """Host and port to listen at."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def load_settings(path: Path) -> ControllerSettings:
    """Read and check the controller's file.

    Raises:
        SpecError: it is missing, is no YAML, or a setting is unknown or unusable.
    """
    content = read_spec(path, kind="settings")
    try:
        settings = ControllerSettings.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{path}: {problems_in(error, ControllerSettings)}") from None
    _refuse_credentials(settings, path)
    # Seen now, not at the first request: a wrong address is a mistake in this file.
    open_store(settings.state)
    uris = [source.uri for source in settings.sources]
    if len(set(uris)) < len(uris):
        raise SpecError(f"{path}: a source is listed twice; list each once")
    return settings


def _refuse_credentials(settings: ControllerSettings, path: Path) -> None:
    """Before an address is shown anywhere: it may carry a password by mistake."""
    addresses = {"state": settings.state}
    addresses |= {f"sources.{i}.uri": each.uri for i, each in enumerate(settings.sources)}
    if settings.pipelines:
        addresses["pipelines.host"] = settings.pipelines.host
    for name, address in addresses.items():
        if "@" in address.partition("://")[2].partition("/")[0]:
            raise SpecError(
                f"{path}: the address in '{name}' holds a user name or a password; give "
                "credentials in the environment"
            )


def load_specs(folder: Path) -> dict[str, dict[str, Any]]:
    """The named specs, by name, as plain settings that `make_spec` takes.

    Raises:
        SpecError: no folder, no spec in it, or one that cannot be used for every model.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise SpecError(f"no specs in {folder}; put <name>.yaml there, or correct `specs`")
    return {file.stem: _named_spec(file) for file in files}


def _named_spec(file: Path) -> dict[str, Any]:
    if not _SPEC_NAME.fullmatch(file.stem):
        raise SpecError(f"{file}: a spec's name has letters, digits, '.', '_' and '-' only")
    content = read_spec(file)
    given = [name for name in _OWN_SETTINGS if name in content]
    if given:
        raise SpecError(
            f"{file} sets {', '.join(given)}, which the controller sets for each run; remove it"
        )
    try:
        spec = make_spec(content, {"model": "model.keras"})
    except SpecError as error:
        raise SpecError(f"{file}: {error}") from None
    if not spec.publish.to:
        raise SpecError(f"{file}: publish.to is not set; say where releases go: s3://bucket/prefix")
    return content
