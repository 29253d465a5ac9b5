"""Releases in object storage: written whole or not at all, listed, verified, rolled back.

A store holds `blobs/<sha256>`, `<name>/<version>/...` and `<name>/index.json`; what the index does
not name does not exist for readers.
"""

from lrf_core.releases.catalog import (
    CatalogEntry,
    CatalogLine,
    list_releases,
    release_names,
    resolve,
    rollback,
    set_alias,
)
from lrf_core.releases.index import CHAMPION, LATEST, PREVIOUS, ReleaseIndex, read_index
from lrf_core.releases.layout import version_of
from lrf_core.releases.verify import (
    damaged_blobs,
    fetch_release,
    fetch_served,
    verify_release,
    verify_version,
    verify_versions,
)
from lrf_core.releases.write import ReleaseDraft, WriteResult, write_release
from lrf_core.spec.release_name import release_name

__all__ = [
    "CHAMPION",
    "LATEST",
    "PREVIOUS",
    "CatalogEntry",
    "CatalogLine",
    "ReleaseDraft",
    "ReleaseIndex",
    "WriteResult",
    "damaged_blobs",
    "fetch_release",
    "fetch_served",
    "list_releases",
    "read_index",
    "release_name",
    "release_names",
    "resolve",
    "rollback",
    "set_alias",
    "verify_release",
    "verify_version",
    "verify_versions",
    "version_of",
    "write_release",
]
