"""What the inputs of a run contain, so that results are taken over for the same content only.

Kubeflow Pipelines takes over the result of a step that had the same arguments before. The spec
names model and data by their addresses, so a digest of what lies there is an argument beside it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from lrf_core.errors import ArtifactError, StorageError
from lrf_core.spec import Spec
from lrf_core.storage.address import Address
from lrf_core.storage.content import Listing, content_at


@dataclass(frozen=True)
class Content:
    """A digest (hex) of all inputs; or "", and the reason why one of them cannot be seen."""

    digest: str
    reason: str = ""


def content_of(spec: Spec) -> Content:
    """What the model, the weights, the data and the latency table of a spec contain.

    Nothing is fetched: object storage tells the digest or the tag of each object. Paths are those
    that containers see, and functions may read anything: neither can be seen from outside.
    """
    sources = {"model": spec.model, "weights": spec.weights, "data": spec.data}
    if spec.explore.latency != "measure":
        sources["explore.latency"] = spec.explore.latency
    found = {}
    for name, source in sources.items():
        if source is None:
            continue
        try:
            address = Address.of(source)
            if not address.is_remote:
                return Content("", f"what is in {name}: {source} cannot be seen from here")
            listing = content_at(address.bucket_store(), address.path)
        except StorageError as error:
            return Content("", f"{name} cannot be seen from here: {error}")
        if reason := _unknown(listing):
            return Content("", f"{reason} at {name}: {source}")
        found[name] = listing
    text = json.dumps(found, sort_keys=True)
    return Content(hashlib.sha256(text.encode()).hexdigest())


def check_content(spec: Spec, digest: str) -> None:
    """Refuse to work on other content than a run was submitted for.

    Its results would be taken over for the content that the run names. With "" nothing is taken
    over, and nothing checked.

    Raises:
        ArtifactError: the content is another by now, or cannot be seen.
    """
    if not digest:
        return
    seen = content_of(spec)
    if seen.digest != digest:
        why = seen.reason or f"it has changed: {seen.digest[:12]} now, {digest[:12]} then"
        raise ArtifactError(
            f"the model or the data is not what this run was submitted for ({why}); submit it "
            "again, and leave both as they are meanwhile"
        )


def _unknown(listing: Listing) -> str:
    if not listing:
        return "there is nothing"
    return "" if all(digest for _, digest, _ in listing) else "there are objects without a digest"
