"""The moments of all layers: in memory if they fit its budget, in temporary files otherwise."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lrf_core.artifacts import LayerRecord
from lrf_core.calibration.collect import calibrated_groups
from lrf_core.calibration.memory import groups_that_fit
from lrf_core.data import Split
from lrf_core.errors import ArtifactError
from lrf_core.files.scratch import scratch_folder
from lrf_core.methods import Moments


def moments_of_all(
    model: keras.Model,
    records: Sequence[LayerRecord],
    samples: Split,
    *,
    memory_bytes: int,
    **settings: Any,
) -> Mapping[str, Moments]:
    """The moments of all layers: in memory if they fit, otherwise in temporary files.

    Args:
        records, samples, settings: as `calibrated_groups` takes them.
        memory_bytes: for the moments, and the arithmetic on them.

    Raises:
        SpecError, DataError: as `calibrated_groups`.
        ArtifactError: the folder for temporary files is full or cannot be written.
    """
    groups = calibrated_groups(model, records, samples, memory_bytes=memory_bytes, **settings)
    if len(groups_that_fit(records, samples.count, memory_bytes)) == 1:
        return next(groups)
    return MomentFiles(groups)


class MomentFiles(Mapping[str, Moments]):
    """Moments by layer, each read from its file whenever it is looked up.

    The files are removed with this object, at the latest when the process ends.

    Args:
        groups: moments of some layers at a time; a group is written before the next is made.

    Raises:
        ArtifactError: the folder for temporary files is full or cannot be written.
    """

    def __init__(self, groups: Iterable[Mapping[str, Moments]]) -> None:
        with ExitStack() as stack:
            try:
                self._folder = stack.enter_context(scratch_folder("moments"))
                self._files: dict[str, Path] = {}
                for group in groups:
                    for path, moments in group.items():
                        self._files[path] = self._written(moments)
            except OSError as error:
                raise ArtifactError(
                    f"cannot write the moments of layers: {error.strerror or error}; make room, "
                    "set TMPDIR to a folder with room, or raise explore.memory_gib"
                ) from None
            weakref.finalize(self, stack.pop_all().close)

    def __getitem__(self, path: str) -> Moments:
        with np.load(self._files[path], allow_pickle=False) as arrays:
            found = dict(arrays)
        rows_seen = int(found.pop("rows_seen"))
        return Moments(found["second"], found.get("gradient"), found["rows"], rows_seen)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _written(self, moments: Moments) -> Path:
        file = self._folder / f"{len(self._files)}.npz"
        rows_seen = np.asarray(moments.rows_seen)
        arrays: dict[str, Any] = {
            "second": moments.second,
            "rows": moments.rows,
            "rows_seen": rows_seen,
        }
        if moments.gradient is not None:
            arrays["gradient"] = moments.gradient
        np.savez(file, allow_pickle=False, **arrays)
        return file
