"""Copy plain values out of a model's config, and refuse what is not on the list, in one line."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import keras

from lrf_core.errors import ModelError
from lrf_core.models import allowed

# These carry or call code, or load it from elsewhere.
RUNS_CODE = {
    "Lambda",
    "__lambda__",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
}
# What tf.keras 2 wrote for a tf function called between layers. Keras 3 has nothing like it.
_TF_FUNCTIONS = {
    "TFOpLambda",
    "SlicingOpLambda",
    "TensorFlowOpLayer",
    "ClassMethod",
    "InstanceMethod",
    "InstanceProperty",
}
# One sample of 1 GiB in float32.
_LARGEST_SAMPLE = 1 << 28
_INSTEAD = (
    "Rebuild it from stock layers with the functional API, or, in Python, register a class of "
    "your own with keras.saving.register_keras_serializable and load the model in that process"
)
Part = dict[str, Any]


class PlainReader:
    """Copies numbers, strings, shapes, dtypes and tensors.

    Args:
        where: the file, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._at = "a part"

    def _part(self, value: Any, noun: str) -> Part:
        """A part with a class and settings, none of which carries code by its very name."""
        if not isinstance(value, dict):
            self._fail(f"{self._at} has a {type(value).__name__} in the place of a {noun}")
        kind, config = value.get("class_name"), value.get("config")
        if not isinstance(kind, str):
            self._fail(f"{self._at} has a {noun} without the name of a class")
        if kind in RUNS_CODE or kind in _TF_FUNCTIONS or kind == "function":
            self._refuse(value, noun)
        if not isinstance(config, dict):
            self._fail(f"{self._at} has a {noun} of class {kind!r:.80} without settings")
        return value

    def _dtype(self, value: Any) -> Any:
        name = value
        if isinstance(value, dict):
            part = self._part(value, "dtype")
            name = part["config"].get("name")
            if part["class_name"] not in ("DTypePolicy", "FloatDTypePolicy", "Policy"):
                self._refuse(part, "dtype")
        if not isinstance(name, str) or name not in allowed.POLICIES:
            self._fail(f"{self._at} has the dtype {name!r:.80}, which is not on the list")
        if name == value:
            return name
        return copy_of({"class_name": "DTypePolicy"}, "keras", {"name": name})

    def _seed(self, value: Any) -> Part:
        part = self._part(value, "seed")
        if (part["class_name"], part.get("module")) != ("SeedGenerator", "keras.random"):
            self._refuse(part, "seed")
        config = {key: self._plain(each, key) for key, each in part["config"].items()}
        return copy_of(part, "keras.random", config)

    def _argument(self, value: Any) -> Any:
        """Numbers, strings, tensors, slices, and lists and dicts of such."""
        if isinstance(value, list):
            return [self._argument(each) for each in value]
        if not isinstance(value, dict):
            return self._plain(value, "argument")
        if "class_name" not in value:
            return {key: self._argument(each) for key, each in value.items()}
        part = self._part(value, "argument")
        kind, config = part["class_name"], part["config"]
        if kind == "__keras_tensor__":
            history = self._list(config.get("keras_history"), "keras_history")
            if [type(each) for each in history] != [str, int, int]:
                self._fail(f"{self._at} takes a tensor of no layer, {history!r:.80}")
            shape = self._plain(config.get("shape"), "shape")
            new = {"shape": shape, "dtype": self._dtype(config.get("dtype"))}
            return {"class_name": kind, "config": {**new, "keras_history": history}}
        if kind in ("__tensor__", "__numpy__"):
            new = {"value": self._plain(config.get("value"), "value")}
            return {
                "class_name": kind,
                "config": {**new, "dtype": self._dtype(config.get("dtype"))},
            }
        if kind == "__slice__":
            new = {key: self._argument(config.get(key)) for key in ("start", "stop", "step")}
            return {"class_name": kind, "config": new}
        if kind == "__ellipsis__":
            return {"class_name": kind, "config": {}}
        return self._refuse(part, "argument")

    def _plain(self, value: Any, key: str) -> Any:
        if isinstance(value, list):
            return [self._plain(each, key) for each in value]
        if isinstance(value, dict):
            if "class_name" in value:
                self._refuse(self._part(value, key), key)
            return {name: self._plain(each, key) for name, each in value.items()}
        if isinstance(value, int) and abs(value) >= 1 << 63:
            self._fail(f"{self._at} has a number of more than 64 bits as {key!r:.80}")
        return value

    def _bounded(self, value: Any, key: str, most: int) -> Any:
        for number in keras.tree.flatten(self._plain(value, key)):
            if isinstance(number, (int, float)) and not abs(number) <= most:
                self._fail(f"{self._at} has {key}={number!r:.40}; the most is {most}")
        return value

    def _shape(self, value: Any, key: str) -> Any:
        """One shape, or a list or dict of shapes."""
        copy = self._plain(value, key)
        flat = copy if isinstance(copy, list) else []
        sizes = [size for size in flat[1:] if isinstance(size, int)]
        if math.prod(sizes) > _LARGEST_SAMPLE:
            self._fail(
                f"{self._at} takes samples of {sizes!r:.80} values; the most is {_LARGEST_SAMPLE}"
            )
        for inner in copy.values() if isinstance(copy, dict) else flat:
            if isinstance(inner, (list, dict)):
                self._shape(inner, key)
        return copy

    def _list(self, value: Any, key: str) -> list[Any]:
        if not isinstance(value, list):
            self._fail(f"{self._at} has {value!r:.80} as {key!r:.80}, not a list")
        return value

    def _refuse(self, part: Part, noun: str) -> NoReturn:
        kind = part["class_name"]
        name = name_of(part)
        label = self._at if name is None else f"layer {name!r:.80}"
        if kind in RUNS_CODE:
            raise ModelError(
                f"{self._where}: {label} is arbitrary code ({kind}), which is not loaded. Replace "
                "a Lambda layer or the like by a stock Keras layer or keras.ops and save again"
            )
        if kind in _TF_FUNCTIONS:
            raise ModelError(
                f"{self._where}: {label} is a tf function called between layers ({kind}), which "
                "Keras 3 cannot read. Replace it by a stock Keras layer or keras.ops and save again"
            )
        module = str(part.get("module"))
        full = f"{module}.{part.get('config') if kind == 'function' else kind}"
        if module.partition(".")[0] == "keras":
            self._fail(
                f"{label} has {full!r:.120} as its {noun}, which is not on the list of what a file "
                "may name"
            )
        raise ModelError(
            f"{self._where} holds a custom or subclassed layer, model or function that is not "
            f"known here: {label} of class {full!r:.120}. {_INSTEAD}"
        )

    def _fail(self, reason: str) -> NoReturn:
        raise ModelError(f"{self._where}: {reason}; it is not loaded. {_INSTEAD}")


def copy_of(part: Part, module: str | None, config: Any) -> Part:
    kind = part["class_name"]
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def name_of(part: Part) -> str | None:
    """Of a layer; None if a part has none."""
    config = part.get("config")
    name = part.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return name if isinstance(name, str) else None
