"""Damaged, hostile and oversized model files are bad input: one line, no memory, no other file."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from lrf_core.errors import ModelError, SpecError
from lrf_core.models import formats
from lrf_core.models.load import load_model, model_digest

layers = keras.layers


def small() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")], name="small")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small().save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def changed(path: Path, **members: bytes) -> Path:
    """A .keras file with other content of `config`, `metadata` or `weights`."""
    names = {"config": "config.json", "metadata": "metadata.json", "weights": "model.weights.h5"}
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content.update({names[key]: value for key, value in members.items()})
    with zipfile.ZipFile(path, "w") as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    return path


def refused(*arguments: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def config_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def nested(depth: int) -> bytes:
    return b'{"class_name":"Sequential","config":{"layers":' + b"[" * depth + b"]" * depth + b"}}"


@pytest.mark.parametrize("metadata", [b"[1]", b"null", b"{", b"\xff", b"[" * 5000, b'{"a":1}' * 2])
def test_metadata_that_is_none(saved: Path, metadata: bytes) -> None:
    assert "model" in refused(changed(saved, metadata=metadata))


@pytest.mark.parametrize(
    "config",
    [nested(5000), nested(500), b"\xff\xfe{", b"1", b"{}", b'{"class_name": "Model"}', b"9" * 9999],
)
def test_a_config_that_is_none(saved: Path, config: bytes) -> None:
    assert "model" in refused(changed(saved, config=config))


@pytest.mark.parametrize("depth", [100, 240, 2000])
def test_models_nested_very_deep(saved: Path, depth: int) -> None:
    layer = json.dumps(config_of(saved)["config"]["layers"][1])
    around = '{"class_name": "Sequential", "module": "keras", "config": {"name": "n", "layers": ['
    config = around * depth + layer + "]}}" * depth
    assert "no readable" in refused(changed(saved, config=config.encode()))


@pytest.mark.parametrize("length", [100, 2000, 10_000])
def test_a_truncated_h5_file(tmp_path: Path, length: int) -> None:
    small().save(tmp_path / "model.h5")
    content = (tmp_path / "model.h5").read_bytes()
    (tmp_path / "model.h5").write_bytes(content[:length])
    assert "model.h5 is damaged" in refused(tmp_path / "model.h5")


@pytest.mark.parametrize("name", ["a b", "é", "a:b", "a\\b", "a\n"])
def test_names_that_tensorflow_refuses(saved: Path, name: str) -> None:
    config = config_of(saved)
    config["config"]["layers"][1]["config"]["name"] = name
    assert "TensorFlow refuses" in refused(changed(saved, config=json.dumps(config).encode()))


def test_a_name_of_a_model_that_tensorflow_refuses(saved: Path) -> None:
    config = config_of(saved)
    config["config"]["name"] = "_model"
    assert "the model '_model'" in refused(changed(saved, config=json.dumps(config).encode()))


def test_an_encrypted_member(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + flags] |= 1
    saved.write_bytes(content)
    assert "encrypted" in refused(saved)


def test_a_member_with_a_wrong_checksum(saved: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content.replace(b'"units": 3', b'"units": 4'))
    assert "Bad CRC-32" in refused(saved)


def test_weights_packed_in_another_way(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("assets/x", b"x")
    assert "packed in a way" in refused(saved)


def soft(file: h5py.File, _: Path) -> None:
    file["link"] = h5py.SoftLink("/layers/dense")


def external(file: h5py.File, secret: Path) -> None:
    file["link"] = h5py.ExternalLink(str(secret), "/x")


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
    file.create_virtual_dataset("link", layout)


def elsewhere(file: h5py.File, secret: Path) -> None:
    file.create_dataset("link", (4,), "f4", external=[(str(secret), 0, 16)])


def objects(file: h5py.File, _: Path) -> None:
    file.create_dataset("link", data=["a", "b"], dtype=h5py.string_dtype())


def references(file: h5py.File, _: Path) -> None:
    file.create_dataset("link", data=[file.ref], dtype=h5py.ref_dtype)


def datatype(file: h5py.File, _: Path) -> None:
    file["link"] = np.dtype("f8")


def declared(file: h5py.File, _: Path) -> None:
    file.create_dataset("link", (1 << 40,), "f4")


def compressed(file: h5py.File, _: Path) -> None:
    file.create_dataset("link", (1 << 34,), "f4", chunks=(1 << 20,), compression="gzip")


def large_chunk(file: h5py.File, _: Path) -> None:
    chunk = {"chunks": (1 << 28,), "maxshape": (None,), "compression": "gzip"}
    file.create_dataset("link", (1,), "f4", **chunk)


def filtered(file: h5py.File, _: Path) -> None:
    """By a filter that HDF5 would look for among its plugins, shared libraries."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((4,))
    settings.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL)
    kind, space = h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"link", kind, space, settings)


HOSTILE = [filtered, soft, external, virtual, elsewhere, objects, references, datatype, declared]
HOSTILE += [compressed, large_chunk]
Change = Callable[[h5py.File, Path], None]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_weights_that_are_no_plain_arrays(change: Change, saved: Path, tmp_path: Path) -> None:
    model = small()
    (tmp_path / "model.json").write_text(model.to_json())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones(4, "f4")
    model.save_weights(tmp_path / "w.weights.h5")
    model.save(tmp_path / "model.h5")
    for path in (tmp_path / "w.weights.h5", tmp_path / "model.h5"):
        with h5py.File(path, "a") as file:
            change(file, tmp_path / "secret.h5")
    changed(saved, weights=(tmp_path / "w.weights.h5").read_bytes())

    for use in ((tmp_path / "model.json", tmp_path / "w.weights.h5"), (saved,)):
        said = refused(*use)
        assert str(use[-1]) in said
    refused(tmp_path / "model.h5")


def test_groups_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    model = small()
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "a") as file:
        file["layers/again"] = file["/"]
    loaded = load_model(tmp_path / "model.json", tmp_path / "w.weights.h5")
    assert model_digest(loaded) == model_digest(model)


OVERSIZED = [
    ("Dense", {"units": 2_000_000_000}),
    ("Dense", {"units": 1 << 62}),
    ("LSTM", {"units": 2_000_000}),
    ("LSTM", {"units": 2_000_000, "stateful": True}),
    ("Conv1D", {"filters": 8, "kernel_size": [1_000_000_000]}),
    ("Embedding", {"input_dim": 2_000_000_000, "output_dim": 64}),
    ("MultiHeadAttention", {"num_heads": 100_000, "key_dim": 100_000}),
    ("EinsumDense", {"equation": "ab,bc->ac", "output_shape": [2_000_000_000]}),
    ("InputLayer", {"batch_shape": [None, 1 << 40]}),
    ("TextVectorization", {"ngrams": 1_000_000_000}),
    ("RandAugment", {"num_ops": 1_000_000_000}),
]

CHILD = """
import resource, sys
from lrf_core.errors import ModelError
from lrf_core.models.load import load_model
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
load_model(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    try:
        load_model(path)
        print("loaded", path)
    except ModelError as error:
        assert "\\n" not in str(error)
print(peak() - before)
"""


def declaring(saved: Path, target: Path, kind: str, settings: dict[str, Any], built: bool) -> Path:
    """A copy of a .keras file whose config declares a layer of another size."""
    inputs = keras.Input((8, 4) if kind in ("LSTM", "Conv1D") else (4,), name="x")
    config = json.loads(keras.Model(inputs, layers.Dense(3, name="d")(inputs)).to_json())
    layer = config["config"]["layers"][0 if kind == "InputLayer" else 1]
    layer.update(class_name=kind, config={**layer["config"], **settings})
    if kind not in ("Dense", "InputLayer"):
        layer["config"] = {"name": "d", **settings}
    if kind == "MultiHeadAttention":
        layer["inbound_nodes"][0]["args"] *= 2
    if not built:
        layer.pop("build_config", None)
    target.write_bytes(saved.read_bytes())
    return changed(target, config=json.dumps(config).encode())


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.mark.parametrize(("kind", "settings"), OVERSIZED)
def test_a_declared_size_takes_no_memory(
    kind: str, settings: dict[str, Any], saved: Path, tmp_path: Path
) -> None:
    before = peak_megabytes()
    for built in (True, False):
        refused(declaring(saved, tmp_path / f"{built}.keras", kind, settings, built))
    assert peak_megabytes() - before < 300


@pytest.mark.slow
def test_declared_sizes_take_no_memory_in_a_process_of_their_own(
    saved: Path, tmp_path: Path
) -> None:
    paths = [
        declaring(saved, tmp_path / f"{index}{built}.keras", *case, built)
        for index, case in enumerate(OVERSIZED)
        for built in (True, False)
    ]
    command = [sys.executable, "-c", CHILD, str(saved), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 300, done.stdout


def test_a_refused_size_is_not_made_later(saved: Path) -> None:
    config = config_of(saved)
    config["config"]["layers"][1]["config"]["units"] = 1 << 40
    assert "values of weights" in refused(changed(saved, config=json.dumps(config).encode()))
    with keras.StatelessScope():
        pass  # makes the variables that wait to be made


def test_a_config_that_is_too_long(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRF_MAX_UNPACKED", "256K")
    assert "its config has more than 1024 bytes" in refused(saved)


def test_more_layers_than_allowed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRF_MAX_LAYERS", "2")
    assert "Set LRF_MAX_LAYERS" in refused(saved)
    monkeypatch.setenv("LRF_MAX_LAYERS", "many")
    with pytest.raises(SpecError, match="give a number of layers"):
        load_model(saved)


def test_a_model_that_unpacks_to_more_than_allowed(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_MAX_UNPACKED", "4K")
    assert "Set LRF_MAX_UNPACKED" in refused(saved)


def test_a_file_that_changes_between_check_and_load(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, check = model_digest(small_like(saved)), formats.check_size

    def swapped(*arguments: Any) -> None:
        check(*arguments)
        saved.write_bytes(b"another file")

    monkeypatch.setattr(formats, "check_size", swapped)
    assert model_digest(load_model(saved)) == digest
    assert saved.read_bytes() == b"another file"


def small_like(path: Path) -> keras.Model:
    return keras.saving.load_model(path, compile=False)


def test_copies_are_not_left_behind(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    load_model(saved)
    saved.write_bytes(saved.read_bytes()[:-30])
    refused(saved)
    assert not list((tmp_path / "temporary").iterdir())
