"""What a run on a cluster left in object storage: the gate's answers, and the release."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from lrf_core.artifacts import Release, Verdict, Verdicts
from lrf_core.artifacts.record import Artifact
from lrf_core.console.terminal import print_table
from lrf_core.errors import ArtifactError, StorageError
from lrf_core.files.scratch import scratch_folder
from lrf_core.report.tables import checks_table, published
from lrf_core.storage import Store, open_store
from pipelines.compress import NAME
from pipelines.kfp_api import Submitted, poll_with_retries

_Found = TypeVar("_Found", bound=Artifact)


@dataclass(frozen=True)
class Results:
    """What a run came to; `missing` says why there is no verdict to show."""

    verdicts: Verdicts | None
    release: Release | None
    missing: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """On the candidate that was picked."""
        return self.verdicts.verdicts[self.verdicts.picked] if self.verdicts else None


def results_of(submitted: Submitted) -> Results:
    """As `read_results`; if it cannot be read from here, `missing` says why.

    Raises:
        PipelineApiError: the API stopped answering, or knows no such run.
    """
    try:
        return read_results(submitted)
    except (StorageError, ArtifactError) as error:
        return Results(None, None, str(error))


def read_results(submitted: Submitted) -> Results:
    """Read what a run left below its pipeline root.

    Validate and publish are never cached, so what they left lies in the run's own folder:
    `<pipeline root>/<pipeline>/<run>/<step>/<attempt>/<artifact>`.

    Raises:
        PipelineApiError: the API stopped answering, or knows no such run.
        StorageError: the store cannot be read.
        ArtifactError: what is there is damaged, or of another version.
    """
    run = poll_with_retries(lambda: submitted.client.get_run(submitted.run_id), submitted.url)
    root = run.runtime_config.pipeline_root if run.runtime_config else None
    if not root:
        return Results(None, None, "the run has no pipeline root of its own; set pipeline_root")
    store = open_store(root)
    keys = list(store.list(f"{NAME}/{submitted.run_id}/"))
    verdicts = _latest(store, keys, "validate/.*verdicts", Verdicts)
    release = _latest(store, keys, "publish/.*release", Release)
    return Results(verdicts, release, "" if verdicts else f"there is none below {root}")


def print_results(results: Results) -> None:
    """Print the checks of the gate, and what was published, as a run on this machine does."""
    if results.verdict:
        print_table(checks_table(results.verdict))
    if results.release:
        print_table(published(results.release))
        print_table(f"release: {results.release.location}")


def results_as_json(submitted: Submitted, passed: bool | None, results: Results) -> dict[str, Any]:
    """The same for machines; `passed` is null for a run that was not waited for."""
    return {
        "run_id": submitted.run_id,
        "url": submitted.url,
        "passed": passed,
        "verdict": results.verdict.model_dump(mode="json") if results.verdict else None,
        "release": results.release.model_dump(mode="json") if results.release else None,
    }


def _latest(store: Store, keys: list[str], pattern: str, kind: type[_Found]) -> _Found | None:
    """Of several attempts of a step, what the last one left."""
    found = [key for key in keys if re.search(rf"/{pattern}$", key)]
    if not found:
        return None
    with scratch_folder("results") as folder:
        file = folder / kind.file_name
        store.get_file(max(found, key=lambda key: _written(store, key)), file)
        return kind.load(file)


def _written(store: Store, key: str) -> datetime:
    info = store.stat(key)
    return (info.modified if info else None) or datetime.min.replace(tzinfo=UTC)
