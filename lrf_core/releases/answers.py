"""Sample answers, recorded with a release: what the model must answer wherever it is served."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import Release
from lrf_core.errors import ArtifactError
from lrf_core.releases.layout import file_key
from lrf_core.releases.verify import get_sound
from lrf_core.storage import Store

Array = npt.NDArray[Any]

ANSWERS_FILE = "answers.npz"
ANSWERED_SAMPLES = 8

_INPUT, _OUTPUT = "input/", "output/"


@dataclass(frozen=True)
class SampleAnswers:
    """Inputs and the released model's answers, by the names in exported files.

    Attributes:
        inputs, outputs: arrays `(n, ...)`, the same n in all.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]

    @property
    def count(self) -> int:
        """n, how many samples there are."""
        return len(next(iter(self.inputs.values())))

    def save(self, target: Path) -> Path:
        """Write `answers.npz`: no pickles in it, and the same arrays give the same bytes."""
        arrays = {_INPUT + name: values for name, values in self.inputs.items()}
        arrays |= {_OUTPUT + name: values for name, values in self.outputs.items()}
        with zipfile.ZipFile(target, "w") as archive:
            for name, values in arrays.items():
                content = io.BytesIO()
                np.save(content, values, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
        return target


def sample_answers(store: Store, release: Release) -> SampleAnswers:
    """The answers recorded with a release.

    Raises:
        ArtifactError: the release has none, or the file is missing, damaged, or not such a file.
        StorageError: the store cannot be read.
    """
    file = next((file for file in release.files if file.path == ANSWERS_FILE), None)
    if file is None:
        raise ArtifactError(f"{release.location} has no {ANSWERS_FILE}; publish the model again")
    key = file_key(release.name, release.version, ANSWERS_FILE)
    content = get_sound(store, key, file.sha256)
    if content is None:
        raise ArtifactError(
            f"{store.url(key)} is missing or damaged; publish the same model again to repair it"
        )
    return read_answers(content, store.url(key))


def read_answers(content: bytes, where: str) -> SampleAnswers:
    """The answers in the bytes of an `answers.npz`. Raises ArtifactError."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{where} holds no sample answers: {reason}") from None
    inputs, outputs = (
        {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
        for start in (_INPUT, _OUTPUT)
    )
    counts = {values.shape[:1] for values in arrays.values()}
    named = len(inputs) + len(outputs) == len(arrays)
    if not inputs or not outputs or len(counts) != 1 or counts & {(), (0,)} or not named:
        raise ArtifactError(
            f"{where} holds no sample answers; expected arrays input/NAME and output/NAME with the "
            "same number of samples"
        )
    odd = [name for name, values in arrays.items() if not _is_finite(values)]
    if odd:
        raise ArtifactError(f"{where} holds values that are no finite numbers in {', '.join(odd)}")
    return SampleAnswers(inputs, outputs)


def _is_finite(values: Array) -> bool:
    return values.dtype.kind in "biuf" and bool(np.isfinite(values).all())
