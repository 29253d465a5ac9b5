"""Releases for tests of promotion, of models too small for the whole way."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sound_verdict import sound_verdict

from lrf_core.artifacts import (
    Lineage,
    Override,
    Release,
    ReleaseFile,
    ReleaseSummary,
    Verdict,
    digest_of,
)
from lrf_core.export.saved_model import SavedModel, to_saved_model
from lrf_core.models.load import model_digest, save_model
from lrf_core.releases.index import IndexEntry, change_index
from lrf_core.storage import Store, open_store, sha256_of

NAME = "digits"


def small_model(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(3, activation="softmax", name="answer")(x)
    return keras.Model(inputs, outputs, name=NAME)


def verdict_on(model: keras.Model, **numbers: Any) -> Verdict:
    """Passed, unless the numbers say otherwise; see `sound_verdict`."""
    return sound_verdict(model_digest(model), **numbers)


def write_release(
    store: Store, model: keras.Model, verdict: Verdict, override: Override | None = None
) -> str:
    """Write a release as the layout of a store has it; returns its version."""
    digest = model_digest(model)
    version = f"v-{digest_of({'name': NAME, 'model': digest})[:12]}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_model(model, folder / "model.keras")
        to_saved_model(model, folder / "saved_model" / "1")
        verdict.save(folder / "verdict.json")
        inputs = np.random.default_rng(0).standard_normal((8, 6, 6, 1), dtype=np.float32)
        served = SavedModel(folder / "saved_model" / "1")
        outputs = served.run({"image": inputs})
        np.savez(
            folder / "answers.npz",
            **{"input/image": inputs},
            **{f"output/{name}": values for name, values in outputs.items()},
        )
        files = []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                relative = path.relative_to(folder).as_posix()
                store.put_file(f"{NAME}/{version}/{relative}", path)
                found = sha256_of(path)
                files.append(ReleaseFile(path=relative, size=found.size, sha256=found.sha256 or ""))
    release = _release(store, version, digest, verdict, files, override)
    content = release.model_dump_json().encode()
    store.put_if_absent(f"{NAME}/{version}/manifest.json", content)
    _make_visible(store, version, content)
    return version


def _make_visible(store: Store, version: str, manifest: bytes) -> None:
    entry = IndexEntry(version=version, manifest_sha256=hashlib.sha256(manifest).hexdigest())
    change_index(store, NAME, lambda index: index.with_version(entry))


def _release(
    store: Store,
    version: str,
    digest: str,
    verdict: Verdict,
    files: list[ReleaseFile],
    override: Override | None,
) -> Release:
    return Release(
        summary=ReleaseSummary.of(verdict),
        lineage=Lineage(inputs={"model": digest}, settings={}),
        name=NAME,
        version=version,
        location=store.url(f"{NAME}/{version}"),
        model_digest=digest,
        verdict_digest=verdict.digest(),
        files=tuple(files),
        override=override,
    )


def make_store(folder: Path) -> dict[str, str]:
    """A store with an old and a new release; their versions."""
    store = open_store(folder.as_uri())
    models = {"old": small_model(1), "new": small_model(2)}
    return {kind: write_release(store, model, verdict_on(model)) for kind, model in models.items()}
