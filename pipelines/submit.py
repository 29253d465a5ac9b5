"""Submit the pipeline to Kubeflow Pipelines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import kfp

from components.content import Content, content_of
from lrf_core.errors import SpecError
from lrf_core.spec import Spec
from pipelines.compress import NAME, pipeline_for
from pipelines.follow import ENDED, RunState, follow, state_of
from pipelines.kfp_api import (
    TOKEN,
    PipelineApiError,
    RunError,
    Submitted,
    connected,
    page_of,
)

__all__ = [
    "TOKEN",
    "PipelineApiError",
    "RunError",
    "RunState",
    "Submitted",
    "attach",
    "connected",
    "follow",
    "state_of",
    "submit",
]

# The API refuses longer ones.
_LONGEST_PARAMETER = 10_000


def submit(
    spec: Spec,
    host: str,
    namespace: str | None,
    experiment: str,
    *,
    run_name: str | None = None,
    pipeline_root: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Submitted:
    """Start a run; or find the one that was started for the same.

    Args:
        spec: with paths as the components see them in their containers.
        host: address of the API, e.g. http://localhost:8888.
        namespace: None if the installation has only one.
        run_name: what the run is called. A run of this name in the experiment is returned, in
            whatever state it is, instead of a second one. Default: a name made of the spec and of
            what its inputs contain; a run of that name is returned as long as it has not ended.
        pipeline_root: where what steps pass on is kept; default: what the spec says.
        say: called with a line about what is not as one may expect.

    Raises:
        SpecError: the spec does not say where to publish, or is too long.
        PipelineApiError: no API at the address, or it refuses the request.
    """
    if not spec.publish.to:
        raise SpecError(
            "publish.to is not set; on a cluster the folder of a step does not outlive it: set "
            "s3://bucket/prefix, or file:///dir on a volume that is mounted"
        )
    cluster = spec.effective_cluster()
    content = content_of(spec) if cluster.cache else Content("", "cluster.cache is false")
    if not content.digest:
        say(f"every step runs again: {content.reason}")
    name, arguments = run_name or _name(spec, content), _arguments(spec, content)
    with connected(host, namespace) as client:
        group = client.create_experiment(experiment, namespace=namespace).experiment_id
        there = _find(client, group, name, ended=run_name is not None)
        if there:
            return Submitted(client, there, page_of(host, there), found=True)
        run = client.create_run_from_pipeline_func(
            pipeline_for(cluster, cached=bool(content.digest)),
            arguments=arguments,
            run_name=name,
            experiment_id=group,
            namespace=namespace,
            pipeline_root=pipeline_root or cluster.pipeline_root,
            service_account=cluster.service_account,
        )
    return Submitted(client, run.run_id, page_of(host, run.run_id))


def attach(run_id: str, host: str, namespace: str | None = None) -> Submitted:
    """A run that was submitted before, to be followed.

    Raises:
        PipelineApiError: no API at the address.
    """
    with connected(host, namespace) as client:
        return Submitted(client, run_id, page_of(host, run_id), found=True)


def _arguments(spec: Spec, content: Content) -> dict[str, str]:
    # What steps ask of the cluster is compiled into them. In the argument it would make them run
    # again when a step is given more memory.
    text = spec.model_dump_json(exclude={"cluster"})
    if len(text) > _LONGEST_PARAMETER:
        raise SpecError(
            f"the spec has {len(text):,} characters, and Kubeflow Pipelines takes no parameter of "
            f"more than {_LONGEST_PARAMETER:,}; shorten the longest lists (explore.layers and "
            "explore.exclude take patterns such as 'block*')"
        )
    return {"spec": text, "content": content.digest}


def _name(spec: Spec, content: Content) -> str:
    asked = f"{spec.model_dump_json()}{content.digest}"
    return f"{NAME} {hashlib.sha256(asked.encode()).hexdigest()[:12]}"


def _find(client: kfp.Client, experiment_id: str, name: str, ended: bool) -> str | None:
    """The id of the latest run of this name; of those that have ended only if `ended`."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    found: list[Any] = (
        client.list_runs(
            experiment_id=experiment_id,
            filter=json.dumps({"predicates": [predicate]}),
            sort_by="created_at desc",
            page_size=100,
        ).runs
        or []
    )
    for run in found:
        if run.display_name == name and (ended or run.state not in ENDED):
            return str(run.run_id)
    return None
