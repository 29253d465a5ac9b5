"""MLflow: model versions ask by the tag `lrf.compress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lrf_core.registry.mlflow import MlflowRegistry
from lrf_core.registry.requests import COMPRESS, DONE, MODEL, NAME, STATE, CompressionRequest

_PAGE = 200
_OF_RUN, _OF_MODEL = "runs:/", "models:/"


@dataclass(frozen=True)
class MlflowRequests:
    """See `RequestSource` for what each method promises. Ids are `<model>/<version>`."""

    # Of servers that keep artifacts for their clients.
    own_schemes: ClassVar[tuple[str, ...]] = ("mlflow-artifacts:",)
    registry: MlflowRegistry

    def requests(self) -> list[CompressionRequest]:
        with self.registry.connection.explained() as client:
            asking = [version for version in _versions(client) if _asks(version)]
            return [_asking(client, version) for version in asking]

    def fetch(self, model: str, folder: Path) -> None:
        connection = self.registry.connection
        with connection.explained():
            download_artifacts(
                artifact_uri=model, dst_path=str(folder), tracking_uri=connection.address
            )

    def report(self, version: str, facts: Mapping[str, str | float]) -> None:
        name, _, number = version.rpartition("/")
        with self.registry.connection.explained() as client:
            try:
                known = client.get_model_version(name, number).tags
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return
            for fact, value in facts.items():
                text = value if isinstance(value, str) else f"{value:.10g}"
                if known.get(fact, "") != text:
                    client.set_model_version_tag(name, number, fact, text)


def _versions(client: MlflowClient) -> list[ModelVersion]:
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(
            f"tags.`{COMPRESS}` LIKE '%'", max_results=_PAGE, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def _asks(version: ModelVersion) -> bool:
    return bool(version.tags.get(COMPRESS)) and version.tags.get(STATE) not in DONE


def _asking(client: MlflowClient, version: ModelVersion) -> CompressionRequest:
    return CompressionRequest(
        id=f"{version.name}/{version.version}",
        name=version.name,
        model=version.tags.get(MODEL) or _model_uri(client, version),
        spec=version.tags[COMPRESS],
        release_name=version.tags.get(NAME) or None,
    )


def _model_uri(client: MlflowClient, version: ModelVersion) -> str:
    """Where the files really are."""
    source = str(version.source or "")
    if source.startswith(_OF_MODEL):
        source = str(client.get_model_version_download_uri(version.name, version.version))
    if source.startswith(_OF_RUN):
        run, _, path = source.removeprefix(_OF_RUN).partition("/")
        try:
            return f"{client.get_run(run).info.artifact_uri}/{path}"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return source  # of a run that was removed: nothing can be read there
