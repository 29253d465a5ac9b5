"""Releases for tests of promotion, and `lrf_core.releases` where this checkout has none."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lrf_core.artifacts import (
    Check,
    Cost,
    Lineage,
    ModelMeasures,
    Override,
    Release,
    ReleaseFile,
    Verdict,
    digest_of,
)
from lrf_core.errors import ArtifactError, PublishRefusedError
from lrf_core.export.saved_model import SavedModel, to_saved_model
from lrf_core.models.load import model_digest, save_model
from lrf_core.storage import Store, open_store, sha256_of

MISSING = importlib.util.find_spec("lrf_core.releases") is None

NAME = "digits"
PASSED = Check(name="accuracy_drop", limit="at most 1 point", measured="0.2", passed=True)
FAILED = Check(name="params", limit="at least 50% fewer", measured="12%", passed=False)
# What no override may lack.
ALWAYS = tuple(
    Check(name=name, limit="", measured="as before", passed=True)
    for name in ("same_output_shape", "finite_outputs", "digest_unchanged")
)


@dataclass(frozen=True)
class Listed:
    number: int
    release: Release
    aliases: tuple[str, ...]


def small_model(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(3, activation="softmax", name="answer")(x)
    return keras.Model(inputs, outputs, name=NAME)


def verdict_on(model: keras.Model, *checks: Check, **changes: Any) -> Verdict:
    measures = ModelMeasures(cost=Cost(params=10, macs=100), weight_bytes=40)
    checks = (PASSED, *ALWAYS, *checks)
    verdict = Verdict(
        lineage=Lineage(inputs={}, settings={}),
        passed=all(check.passed for check in checks),
        baseline_digest="b" * 64,
        candidate_digest=model_digest(model),
        checks=checks,
        baseline=measures,
        candidate=measures,
        accuracy_drop=0.2,
    )
    return verdict.model_copy(update=changes)


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
    if MISSING:
        found = store.read(f"{NAME}/index.json")
        index = json.loads(found.content) if found else {"versions": [], "aliases": {}}
        index["versions"].append(version)
        index["aliases"]["latest"] = len(index["versions"])
        store.put(f"{NAME}/index.json", json.dumps(index).encode())
    else:
        from lrf_core.releases.index import IndexEntry, change_index

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
    summary: dict[str, Any] = {}
    if "summary" in Release.model_fields:
        from lrf_core.artifacts.release import ReleaseSummary

        summary["summary"] = ReleaseSummary.of(verdict)
    return Release(
        **summary,
        lineage=Lineage(inputs={"model": digest}, settings={}),
        name=NAME,
        version=version,
        location=store.url(f"{NAME}/{version}"),
        model_digest=digest,
        verdict_digest=verdict.digest(),
        files=tuple(files),
        override=override,
    )


def resolve(store: Store, name: str, ref: str) -> Listed:
    index = json.loads(store.get(f"{name}/index.json"))
    if ref in index["aliases"]:
        number = index["aliases"][ref]
    elif ref in index["versions"]:
        number = index["versions"].index(ref) + 1
    elif ref.isdecimal():
        number = int(ref)
    else:
        raise ArtifactError(f"no release {name} {ref}")
    version = index["versions"][number - 1]
    release = Release.model_validate_json(store.get(f"{name}/{version}/manifest.json"))
    aliases = tuple(alias for alias, found in index["aliases"].items() if found == number)
    return Listed(number, release, aliases)


def set_alias(store: Store, name: str, alias: str, number: int) -> None:
    found = store.read(f"{name}/index.json")
    assert found
    index = json.loads(found.content)
    if alias == "champion" and alias in index["aliases"]:
        index["aliases"]["previous"] = index["aliases"]["champion"]
    index["aliases"][alias] = number
    assert store.replace(f"{name}/index.json", json.dumps(index).encode(), found.tag)


def check_release_signature(store: Store, release: Release, public_key: str) -> None:
    raise PublishRefusedError(f"release {release.name}/{release.version} is not signed")


def install() -> None:
    """Stand in for `lrf_core.releases` where it is missing."""
    from lrf_core.stages.publish import verify_release

    module = types.ModuleType("lrf_core.releases")
    offered = {
        "Listed": Listed,
        "resolve": resolve,
        "set_alias": set_alias,
        "verify_release": verify_release,
    }
    module.__dict__.update(offered)
    signing = types.ModuleType("lrf_core.releases.signing")
    signing.__dict__["check_release_signature"] = check_release_signature
    sys.modules[module.__name__], sys.modules[signing.__name__] = module, signing


def make_store(folder: Path) -> dict[str, str]:
    """A store with an old and a new release; their versions."""
    store = open_store(folder.as_uri())
    models = {"old": small_model(1), "new": small_model(2)}
    return {kind: write_release(store, model, verdict_on(model)) for kind, model in models.items()}


if MISSING:
    install()
