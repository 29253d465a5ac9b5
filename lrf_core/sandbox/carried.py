"""A model as one line of JSON and the raw numbers of its arrays, from one process to another.

Whoever reads it needs no parser of archives or HDF5, and gets none of the bytes of the model file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.files.scratch import scratch_folder

Array = npt.NDArray[Any]


def described(model: keras.Model) -> tuple[dict[str, Any], list[Array | bytes]]:
    """A model as JSON, and the contents that the JSON counts, in its order.

    Args:
        model: a built model of layers that this process and the other one know.
    """
    config = {**keras.saving.serialize_keras_object(model), "compile_config": None}
    layers, contents = [], list[Array | bytes]()
    for layer in model._flatten_layers():
        variables: dict[str, Any] = {}
        layer.save_own_variables(variables)
        arrays = {name: _array(value) for name, value in variables.items()}
        assets = _assets(layer)
        layers.append({"variables": _shapes(arrays), "assets": _sizes(assets)})
        contents += [*arrays.values(), *assets.values()]
    others = [_array(variable) for variable in _others(model)]
    contents += others
    shapes = [_shape(array) for array in others]
    return {"config": config, "layers": layers, "others": shapes}, contents


def write_contents(contents: list[Array | bytes], file: BinaryIO) -> None:
    """Write what `described` gave, one after the other."""
    for content in contents:
        file.write(content if isinstance(content, bytes) else content.tobytes())


def made_from(header: dict[str, Any], contents: BinaryIO, size: int) -> keras.Model:
    """The model that another process described.

    Args:
        header: the JSON of `described`, whose config was checked.
        contents: where `write_contents` wrote to, at its beginning.
        size: bytes that it wrote.

    Raises:
        Exception: of many types, when the parts do not fit each other.
    """
    model = keras.saving.deserialize_keras_object(header["config"], safe_mode=True)
    reader = _Reader(contents, size)
    for layer, described in zip(model._flatten_layers(), header["layers"], strict=True):
        variables = {name: reader.array(*each) for name, each in described["variables"].items()}
        layer.load_own_variables(variables)
        if described["assets"]:
            with scratch_folder("assets") as folder:
                for name, size in described["assets"].items():
                    Path(folder, Path(name).name).write_bytes(reader.bytes(size))
                layer.load_assets(folder)
    for variable, shape in zip(_others(model), header["others"], strict=True):
        variable.assign(reader.array(*shape))
    if reader.left:
        raise ValueError(f"{reader.left} bytes are left over")
    return model


class _Reader:
    """Takes one content after the other.

    Attributes:
        left: bytes that are left.
    """

    def __init__(self, contents: BinaryIO, size: int) -> None:
        self._contents = contents
        self.left = size

    def bytes(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise ValueError(f"{size} bytes are announced, {self.left} are there")
        self.left -= size
        return self._contents.read(size)

    def array(self, dtype: str, shape: list[int]) -> Array:
        kind = np.dtype(dtype)
        count = int(np.prod([int(size) for size in shape], dtype=object))
        return np.frombuffer(self.bytes(count * kind.itemsize), kind).reshape(shape)


def _array(value: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(value))


def _shape(array: Array) -> tuple[str, tuple[int, ...]]:
    return str(array.dtype), array.shape


def _shapes(arrays: dict[str, Array]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: _shape(array) for name, array in arrays.items()}


def _sizes(assets: dict[str, bytes]) -> dict[str, int]:
    return {name: len(content) for name, content in assets.items()}


def _assets(layer: keras.Layer) -> dict[str, bytes]:
    if not hasattr(layer, "save_assets"):
        return {}
    with scratch_folder("assets") as folder:
        layer.save_assets(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def _others(model: keras.Model) -> Iterator[Any]:
    """States of random generators: variables that are no weights."""
    weights = {id(weight) for weight in model.weights}
    return (variable for variable in model.variables if id(variable) not in weights)
