"""One of several controllers works: elected by a Kubernetes Lease, by the rules of client-go.

Whoever renews it holds it. The others take it when they saw it stand still for its whole duration
by their own clocks, so that clocks need not agree. Its holder counts itself out after two thirds of
that without a renewal, by its own clock, even if it hung meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import kubernetes.client
import urllib3
from kubernetes.client.exceptions import ApiException

from lrf_core.kubernetes_api import connected, own_namespace, summarize_error

_logger = logging.getLogger("lrf")


@dataclass
class LeaseElection:
    """Takes part in the election until `leave`.

    Attributes:
        duration_s: how long a holder that died keeps the Lease.
    """

    api: kubernetes.client.CoordinationV1Api
    namespace: str
    name: str
    me: str
    duration_s: float
    monotonic: Callable[[], float] = time.monotonic
    _renewed: float = float("-inf")
    _seen: tuple[Any, float] = (None, float("-inf"))
    _failed: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)

    def is_leader(self) -> bool:
        return self.monotonic() - self._renewed < self._deadline_s

    def take_part(self) -> None:
        """Acquire and renew over and over, until `leave`."""
        was = False
        while not self._stop.is_set():
            self.try_once()
            if self.is_leader() != was:
                was = not was
                _logger.info("%s the Lease %s", "holds" if was else "does not hold", self.name)
            self._stop.wait(self.duration_s / 7.5)

    def leave(self) -> None:
        """Stop, and give the Lease back so that another one need not wait for its end."""
        self._stop.set()
        if self.is_leader():
            self._renewed = float("-inf")
            try:
                lease = self._read()
                if lease is not None and lease.spec.holder_identity == self.me:
                    self._replace(lease, self._spec(lease, holder="", duration_s=1))
            except (ApiException, urllib3.exceptions.HTTPError):
                return  # it ends by itself

    def try_once(self) -> None:
        """One attempt to acquire or to renew; a failure is logged once."""
        # Before the request: the Lease counts from when the server got it, which is later.
        now = self.monotonic()
        try:
            if self._acquired(now):
                self._renewed = now
            self._failed = ""
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            said = summarize_error(error)
            if said != self._failed:
                self._failed = said
                _logger.warning("the Lease %s cannot be used: %s", self.name, said)

    @property
    def _deadline_s(self) -> float:
        return self.duration_s * 2 / 3

    def _acquired(self, now: float) -> bool:
        lease = self._read()
        if lease is None:
            return self._created()
        held = (lease.spec.holder_identity, lease.spec.renew_time, lease.metadata.resource_version)
        if held != self._seen[0]:
            self._seen = (held, now)
        free = not lease.spec.holder_identity
        mine = lease.spec.holder_identity == self.me
        if not (free or mine or now - self._seen[1] >= self._theirs_s(lease)):
            return False
        return self._replace(lease, self._spec(lease, holder=self.me))

    def _theirs_s(self, lease: Any) -> float:
        """How long its holder may keep it, which its own settings said."""
        return max(float(lease.spec.lease_duration_seconds or 0), self.duration_s)

    def _read(self) -> Any:
        try:
            return self.api.read_namespaced_lease(
                self.name, self.namespace, _request_timeout=self._timeout_s
            )
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    def _created(self) -> bool:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": self._spec(None, holder=self.me),
        }
        return self._won(
            lambda: self.api.create_namespaced_lease(
                self.namespace, body, _request_timeout=self._timeout_s
            )
        )

    def _replace(self, lease: Any, spec: dict[str, Any]) -> bool:
        metadata = {
            "name": self.name,
            "namespace": self.namespace,
            # Who writes on top of what it has not seen is refused.
            "resourceVersion": lease.metadata.resource_version,
        }
        for kept in ("labels", "annotations"):
            if getattr(lease.metadata, kept):
                metadata[kept] = getattr(lease.metadata, kept)
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        body = {**kind, "metadata": metadata, "spec": spec}
        return self._won(
            lambda: self.api.replace_namespaced_lease(
                self.name, self.namespace, body, _request_timeout=self._timeout_s
            )
        )

    def _won(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except ApiException as error:
            if error.status != 409:
                raise
            return False
        return True

    def _spec(self, lease: Any, *, holder: str, duration_s: float | None = None) -> dict[str, Any]:
        # Microseconds always: the API does not take a time without them.
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        known: Any = lease.spec if lease else None
        same = known is not None and known.holder_identity == holder
        transitions = (known.lease_transitions or 0) if known else 0
        acquired = now
        if same and known.acquire_time:
            acquired = known.acquire_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        # As client-go: no holder if there is none; the API takes no empty one.
        return {
            **({"holderIdentity": holder} if holder else {}),
            "leaseDurationSeconds": max(round(duration_s or self.duration_s), 1),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions + (known is not None and not same and bool(holder)),
        }

    @property
    def _timeout_s(self) -> float:
        return self.duration_s / 3


@contextmanager
def lease_election(
    name: str, namespace: str | None, duration_s: float, me: str
) -> Iterator[LeaseElection]:
    """Takes part in the election meanwhile, in the cluster of this pod, or of KUBECONFIG.

    Raises:
        ClusterError: there is no cluster.
    """
    with connected("elect a leader with", "remove `lease` from the settings") as client:
        api = kubernetes.client.CoordinationV1Api(client)
        election = LeaseElection(api, namespace or own_namespace(), name, me, duration_s)
        thread = threading.Thread(target=election.take_part, name="lease", daemon=True)
        thread.start()
        try:
            yield election
        finally:
            election.leave()
