"""One InferenceService behind the Kubernetes API: read, patched, and never overwritten."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import kubernetes.client
import tenacity
import urllib3

from lrf_core.errors import ClusterError, PromotionError, UnreachableClusterError
from lrf_core.kubernetes_api import TIMEOUT_S, summarize_error
from lrf_core.serving.plan import JSON, patched

_logger = logging.getLogger("lrf")

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"

# Status updates of the controller change resourceVersion too, so a conflict is common.
_CONFLICTS = 10
_ATTEMPTS = 6


class ChangedMeanwhileError(PromotionError):
    """Someone else changed the spec after lrf did; it is left as they made it."""


class InferenceService:
    """An InferenceService by its namespace and name.

    Every method raises ClusterError when the API refuses it, or does not answer for a while.

    Args:
        client: see `lrf_core.kubernetes_api.connected`.
        name: "namespace/name".
        retry_s: longest pause between two attempts, seconds.
    """

    def __init__(
        self, client: kubernetes.client.ApiClient, name: str, retry_s: float = 10.0
    ) -> None:
        self.namespace, _, self.name = name.partition("/")
        self._api = kubernetes.client.CustomObjectsApi(client)
        self._retry_s = retry_s

    def get(self) -> JSON:
        """The service as the API has it."""
        return self._ask("get", lambda where: self._api.get_namespaced_custom_object(**where))

    def preview(self, patch: JSON) -> JSON:
        """What a patch would make of the service, checked by the API and by KServe's webhooks."""
        return self._ask(
            "patch",
            lambda where: self._api.patch_namespaced_custom_object(
                **where, body=patch, dry_run="All"
            ),
        )

    def patch(self, current: JSON, patch: JSON) -> JSON:
        """Apply a patch if the spec is still that of `current`; returns the service.

        Raises:
            ChangedMeanwhileError: someone else changed the spec; nothing was written.
        """
        for _ in range(_CONFLICTS):
            version = {"metadata": {"resourceVersion": current["metadata"]["resourceVersion"]}}
            body = patched(patch, version)
            try:
                return self._ask("patch", partial(self._send, body))
            except _ConflictError:
                fresh = self.get()
            if is_applied(fresh, patch):
                return fresh  # it was applied, and only the answer got lost
            if _content(fresh) != _content(current):
                break
            current = fresh
        raise self._changed()

    def _send(self, body: JSON, where: Mapping[str, Any]) -> Any:
        return self._api.patch_namespaced_custom_object(**where, body=body)

    def unchanged_since(self, current: JSON, fresh: JSON) -> None:
        """Raise ChangedMeanwhileError where someone else changed the spec between the two."""
        if current["metadata"].get("generation") != fresh["metadata"].get("generation"):
            raise self._changed()

    def _changed(self) -> ChangedMeanwhileError:
        return ChangedMeanwhileError(
            f"InferenceService {self.namespace}/{self.name} was changed by someone else meanwhile; "
            "it is left as it is now. See `kubectl get inferenceservice -o yaml`, and promote again"
        )

    def _ask(self, verb: str, call: Callable[[Mapping[str, Any]], Any]) -> JSON:
        where = {
            "group": GROUP,
            "version": VERSION,
            "namespace": self.namespace,
            "plural": PLURAL,
            "name": self.name,
            "_request_timeout": TIMEOUT_S,
        }
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=self._retry_s),
            reraise=True,
        )
        try:
            answer: JSON = again(call, where)
            return answer
        except kubernetes.client.ApiException as error:
            if error.status == 409:
                raise _ConflictError from None
            raise self._refused(verb, error) from None
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableClusterError(
                f"the Kubernetes API does not answer ({verb} {PLURAL}): {summarize_error(error)}"
            ) from None

    def _refused(self, verb: str, error: kubernetes.client.ApiException) -> ClusterError:
        what = f"{verb} {PLURAL}.{GROUP} {self.name} in namespace {self.namespace}"
        if error.status in (401, 403):
            return ClusterError(
                f"the Kubernetes API does not allow to {what}: {summarize_error(error)}; grant the "
                "Role in docs/promotion.md to whom this runs as"
            )
        if error.status == 404:
            return ClusterError(
                f"no InferenceService {self.namespace}/{self.name}, or KServe is not there; create "
                "it first, see docs/promotion.md"
            )
        return ClusterError(f"the Kubernetes API refuses to {what}: {summarize_error(error)}")


def is_applied(service: JSON, patch: JSON) -> bool:
    """Whether a patch would change nothing."""
    return _content(patched(service, patch)) == _content(service)


class _ConflictError(Exception):
    pass


def _may_pass(error: BaseException) -> bool:
    """What may be gone a moment later: no answer, too many requests, a server's own trouble."""
    status = getattr(error, "status", None)
    return isinstance(error, urllib3.exceptions.HTTPError) or status == 429 or (status or 0) >= 500


def _content(service: JSON) -> tuple[Any, Any]:
    annotations = service["metadata"].get("annotations") or {}
    ours = {key: value for key, value in annotations.items() if key.startswith("lrf.io/")}
    return service["spec"], ours
