"""MLflow: a registered model, a version per release, and a run that shows what it changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mlflow.entities import Metric, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lrf_core.artifacts import Release
from lrf_core.files.scratch import scratch_folder
from lrf_core.registry.base import (
    ALIAS,
    MODEL_DIGEST,
    RUN_ID,
    VERSION,
    Registration,
    RegistryError,
    metrics,
    not_registered,
    properties,
    refuse_another_model,
)
from lrf_core.registry.mlflow_client import Connection
from lrf_core.releases.index import LATEST

if TYPE_CHECKING:
    from lrf_core.storage import Store

_logger = logging.getLogger("lrf")

_EXPERIMENT = "lrf"
_FINISHED = "FINISHED"
# What a user looks at in MLflow's pages. The model itself stays where it is: one copy.
_REPORTS = ("report.html", "verdict.json", Release.file_name)


@dataclass(frozen=True)
class MlflowRegistry:
    """See `Registry` for what each method promises.

    Attributes:
        store: where reports are copied from into the run's artifacts; None for none.
    """

    connection: Connection
    store: Store | None = None

    @classmethod
    def open(cls, address: str, store: Store | None = None) -> MlflowRegistry:
        return cls(Connection.open(address), store)

    def check(self) -> None:
        with self.connection.explained() as client:
            client.search_registered_models(max_results=1)

    def register(self, release: Release, number: int, *, run_id: str | None = None) -> Registration:
        """Complete, in this order: registered model, run with metrics and reports, version.

        The version's source is the release itself. `run_id`, of the pipeline, is kept as a tag
        and defaults to the variable KFP_RUN_ID.

        Raises:
            RegistryError: also for a release in a local directory, which no server can read.
        """
        if release.location.startswith("file:"):
            raise RegistryError(
                f"{self.connection.address} cannot register {release.location}: MLflow servers "
                "take no local directories; publish to s3://bucket/prefix"
            )
        run_id = run_id or os.environ.get("KFP_RUN_ID") or None
        tags = properties(release, number, run_id)
        with self.connection.explained() as client:
            _complete_model(client, release.name)
            found = self._versions(client, release)
            run = self._complete_run(client, release, tags, found[0].run_id if found else None)
            if not found:
                client.create_model_version(
                    release.name,
                    release.location,
                    run_id=run,
                    tags=tags,
                    description=f"{release.name} release {number}, published by lrf",
                    await_creation_for=0,
                )
            version = self._only_version(client, release, run)
            _complete_tags(client, version, tags)
            registration = _registration(client, client.get_model_version(*_key(version)))
        _logger.info(
            "%s %s is version %s in the MLflow server at %s",
            release.name,
            release.version,
            registration.id,
            self.connection.address,
        )
        return registration

    def set_alias(self, release: Release, number: int, alias: str) -> None:
        """MLflow keeps `latest` for the highest version; ours is a tag of the registered model."""
        with self.connection.explained() as client:
            found = self._versions(client, release)
            if not found:
                raise not_registered(self.connection.address, release)
            if alias == LATEST:
                client.set_registered_model_tag(release.name, f"{ALIAS}{alias}", release.version)
            else:
                client.set_registered_model_alias(release.name, alias, found[0].version)

    def find(self, name: str, version: str) -> Registration | None:
        with self.connection.explained() as client:
            found = _search(client, name, version)
            return (
                _registration(client, client.get_model_version(*_key(found[0]))) if found else None
            )

    def _versions(self, client: MlflowClient, release: Release) -> list[ModelVersion]:
        found = _search(client, release.name, release.version)
        for version in found:
            refuse_another_model(self.connection.address, release, version.tags.get(MODEL_DIGEST))
        return found

    def _only_version(self, client: MlflowClient, release: Release, run_id: str) -> ModelVersion:
        """The lowest of equal versions; the others came from registrations at the same time.

        MLflow lets several versions have one source, so all who register agree on the lowest.
        """
        kept, *others = self._versions(client, release)
        for version in others:
            _unless_gone(client.delete_model_version, *_key(version))
        if kept.run_id != run_id:
            _unless_gone(client.delete_run, run_id)
        return kept

    def _complete_run(
        self, client: MlflowClient, release: Release, tags: dict[str, str], known: str | None
    ) -> str:
        """The id of the release's run, with its metrics and reports; finished when all is there."""
        run = _run_of(client, known) if known else _started_run(client, release, tags)
        if run is None:
            return known or ""
        if run.info.status == _FINISHED:
            return str(run.info.run_id)
        # With its own time, a metric that is logged again is the same one.
        at = int(datetime.fromisoformat(release.lineage.created).timestamp() * 1000)
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, at, 0) for name, value in metrics(release).items()],
            tags=[RunTag(name, value) for name, value in tags.items() if name != RUN_ID],
        )
        self._log_reports(client, release, run.info.run_id)
        client.set_terminated(run.info.run_id, _FINISHED)
        return str(run.info.run_id)

    def _log_reports(self, client: MlflowClient, release: Release, run_id: str) -> None:
        if self.store is None:
            return
        there = {file.path for file in release.files} | {Release.file_name}
        with scratch_folder("register") as scratch:
            for name in _REPORTS:
                if name in there:
                    path = scratch / name
                    self.store.get_file(f"{release.name}/{release.version}/{name}", path)
                    client.log_artifact(run_id, str(path))


def _complete_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _search(client: MlflowClient, name: str, version: str) -> list[ModelVersion]:
    """The versions made of a release, lowest first; more than one only for a moment."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{VERSION}` = '{version}'")
    return sorted(found, key=lambda each: int(each.version))


def _started_run(client: MlflowClient, release: Release, tags: dict[str, str]) -> Run:
    experiment = _experiment(client)
    found = client.search_runs(
        [experiment],
        f"tags.`{VERSION}` = '{release.version}'",
        order_by=["attributes.start_time ASC"],
    )
    if found:
        return found[0]
    return client.create_run(experiment, tags=tags, run_name=f"{release.name} {release.version}")


def _run_of(client: MlflowClient, run_id: str) -> Run | None:
    """A version's run; None if somebody has removed it, which is theirs to do."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _experiment(client: MlflowClient) -> str:
    """MLflow's own variables name it, else it is called lrf."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        raise


def _complete_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    for name, value in tags.items():
        known = version.tags.get(name)
        if known != value and not (known and name == RUN_ID):
            client.set_model_version_tag(*_key(version), name, value)


def _unless_gone(remove: Callable[..., None], *what: str) -> None:
    try:
        remove(*what)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _key(version: ModelVersion) -> tuple[str, str]:
    return version.name, str(version.version)


def _registration(client: MlflowClient, version: ModelVersion) -> Registration:
    aliases = list(version.aliases)
    model = client.get_registered_model(version.name)
    if model.tags.get(f"{ALIAS}{LATEST}") == version.tags[VERSION]:
        aliases.append(LATEST)
    return Registration(
        registry="mlflow",
        name=version.name,
        version=version.tags[VERSION],
        number=int(version.tags.get("lrf.number", 0)),
        id=str(version.version),
        location=version.source or "",
        run_id=version.tags.get(RUN_ID),
        aliases=tuple(sorted(aliases)),
    )
