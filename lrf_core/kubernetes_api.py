"""How lrf reaches a Kubernetes API: as the pod it runs in, or as the user's KUBECONFIG says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import kubernetes.client
import kubernetes.config

from lrf_core.errors import ClusterError
from lrf_core.redaction import one_line, register, register_pair

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

# Of one request, seconds.
TIMEOUT_S = 30


@contextmanager
def connected(purpose: str, remedy: str) -> Iterator[kubernetes.client.ApiClient]:
    """A client of the API, which tries nothing again by itself.

    Args:
        purpose: completes "no Kubernetes API to ...".
        remedy: what else can be done than to give one.

    Raises:
        ClusterError: there is no configuration to reach one.
    """
    configuration = kubernetes.client.Configuration()
    try:
        if _in_pod():
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        else:
            kubernetes.config.load_kube_config(
                os.environ.get("KUBECONFIG"), client_configuration=configuration
            )
    except kubernetes.config.ConfigException as error:
        raise ClusterError(
            f"no Kubernetes API to {purpose}: {summarize_error(error)}; run it in a pod, set "
            f"KUBECONFIG, or {remedy}"
        ) from None
    _redact(configuration)
    configuration.retries = False
    with kubernetes.client.ApiClient(configuration) as client:
        yield client


def own_namespace() -> str:
    """The namespace of the pod, or of the active context."""
    if _in_pod():
        return _NAMESPACE.read_text(encoding="utf-8").strip()
    _, active = kubernetes.config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
    return str(active["context"].get("namespace", "default"))


def summarize_error(error: Exception) -> str:
    """What an error of the client says, on one line."""
    body = getattr(error, "body", None) or getattr(error, "reason", None) or error
    return one_line(body)


def _redact(configuration: kubernetes.client.Configuration) -> None:
    """Register what the API is asked with, also when the client renews it."""
    renew: Callable[[kubernetes.client.Configuration], None] | None
    renew = configuration.refresh_api_key_hook

    def register_all(used: kubernetes.client.Configuration) -> None:
        if renew:
            renew(used)
        register(*(str(key).removeprefix("Bearer ") for key in used.api_key.values()))
        if used.password:
            register_pair(used.username or "", used.password)

    configuration.refresh_api_key_hook = register_all
    register_all(configuration)


def _in_pod() -> bool:
    # Who sets KUBECONFIG in a pod means another cluster.
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
