"""Where models come from that ask for compression: a bucket prefix, or a model registry."""

from __future__ import annotations

from lrf_core.storage import open_store
from pipelines.controller.settings import SourceSettings
from pipelines.controller.sources.base import Asked, Source
from pipelines.controller.sources.bucket import BucketSource

__all__ = ["Asked", "Source", "open_source"]


def open_source(settings: SourceSettings) -> Source:
    """The source at an address. No request is made yet.

    Raises:
        StorageError, RegistryError: an address that cannot be used.
    """
    if settings.uri.startswith(("kubeflow+", "mlflow+")):
        from pipelines.controller.sources.registered import RegisteredSource

        return RegisteredSource.open(settings.uri)
    return BucketSource(settings.uri, open_store(settings.uri), settings.spec)
