"""Read a model's config by a list of what is allowed, before Keras makes anything of it.

What passes is written again: Keras is given the copy, which holds nothing that was not looked at.
"""

from __future__ import annotations

import copy
import math
import os
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.backend.common import global_state

from lrf_core.errors import ModelError, SpecError
from lrf_core.models import allowed
from lrf_core.models.allowed import Place
from lrf_core.models.plain import RUNS_CODE, Part, PlainReader, copy_of, name_of

# What is registered from these packages is not the user's.
_NOT_OF_USERS = {"keras", "tensorflow", "builtins"}
_LAYER_MODULES = ("keras.layers.", "keras.src.layers.")
_MODEL_MODULES = {
    "Functional": "keras.src.models.functional",
    "Model": "keras",
    "Sequential": "keras",
}
_PLACES = (
    allowed.ACTIVATION,
    allowed.INITIALIZER,
    allowed.REGULARIZER,
    allowed.CONSTRAINT,
    allowed.LOSS,
    allowed.METRIC,
)
# What Keras makes of a setting, by how its name ends.
_OBJECTS = {
    "_initializer": allowed.INITIALIZER,
    "_regularizer": allowed.REGULARIZER,
    "_constraint": allowed.CONSTRAINT,
    "activation": allowed.ACTIVATION,
}
_MAX_LAYERS, _DEFAULT_LAYERS = "LRF_MAX_LAYERS", 10_000
# TensorFlow opens a scope of the name of a layer, and of a model at the top.
LAYER_NAME = re.compile(r"[\w.>-]*", re.ASCII)
_TOP_NAME = re.compile(r"([A-Za-z0-9.][\w.>-]*)?", re.ASCII)


def checked_model(config: Any, where: str) -> Part:
    """A copy of a model's config in which every part is on the list, or registered by the user.

    Args:
        config: as in `config.json` of a `.keras` file, the attribute `model_config` of an `.h5`
            file, or `model.to_json()`. How the model was compiled is left out.
        where: the file, for messages.

    Raises:
        ModelError: anything else is in it.
        SpecError: LRF_MAX_LAYERS is no number.
    """
    return _Reader(where).model(config)


def checked_compiled(config: Any, place: Place, where: str) -> Any:
    """A copy of the config or name of one loss or metric, as `checked_model` copies a model.

    Args:
        place: `allowed.LOSS` or `allowed.METRIC`.

    Raises:
        ModelError: it is not on the list, nor registered by the user.
    """
    return _Reader(where).named(config, place)


def is_of_user(name: object) -> bool:
    """Whether a user registered a class or function of exactly this name in this process."""
    found = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    bases = found.__mro__ if isinstance(found, type) else (found,)
    module = str(getattr(found, "__module__", ""))
    return (
        found is not None
        and module.partition(".")[0] not in _NOT_OF_USERS
        and not any(getattr(base, "__name__", "") in RUNS_CODE for base in bases)
    )


class _Reader(PlainReader):
    """Copies a config, part by part, and refuses what is not on the list."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._most_layers = _layer_limit()
        self._layers = 0

    def model(self, config: Any) -> Part:
        part = self._part(config, "model")
        if part["class_name"] not in allowed.MODELS and self._key_of_user(part) is None:
            self._refuse(part, "model")
        self._check_name(part["config"].get("name"), "model", _TOP_NAME)
        return self._layer(part)

    def named(self, value: Any, place: Place) -> Any:
        """What Keras makes by name, or from a config: an activation, an initializer, ..."""
        if isinstance(value, str):
            if value in place.names or is_of_user(value):
                return value
            self._refuse({"class_name": value, "module": place.module}, place.noun)
        if isinstance(value, dict) and value.get("class_name") == "function":
            return self._function(value, place)
        part = self._part(value, place.noun)
        key = self._key_of_user(part)
        if key is not None:
            return self._part_of_user(part, key)
        if part["class_name"] in place.classes and part.get("module", place.module) == place.module:
            settings = {
                name: self._setting(name, each, place.plain, place.most)
                for name, each in part["config"].items()
            }
            return copy_of(part, place.module, settings)
        if place is allowed.ACTIVATION:
            return self._layer(part)
        if place is allowed.METRIC and part["class_name"] == "MeanMetricWrapper":
            return self.named(part["config"].get("fn"), place)
        return self._refuse(part, place.noun)

    def _function(self, part: Part, place: Place) -> Any:
        name, module = part.get("config"), part.get("module")
        if is_of_user(name):
            kept = {key: part.get(key) for key in ("class_name", "config", "module")}
            return {**kept, "registered_name": name}
        if isinstance(name, str) and name in place.names and module in ("builtins", place.module):
            return name
        return self._refuse(part, place.noun)

    def _key_of_user(self, part: Part) -> str | None:
        """The name that the user registered the class of a part under; None for none."""
        key = part.get("registered_name") or part["class_name"]
        if not is_of_user(key):
            return None
        found = keras.saving.get_registered_object(key)
        names = (key, getattr(found, "__name__", key))
        return key if part["class_name"] in names else None

    def _part_of_user(self, part: Part, key: str) -> Part:
        copy = {**copy_of(part, None, self._free(part["config"])), "registered_name": key}
        if "build_config" in part:
            copy["build_config"] = self._free(part["build_config"])
        return copy

    def _layer(self, value: Any) -> Part:
        """A layer, a model or an operation, with its place in the graph around it."""
        part = self._part(value, "layer")
        self._layers += 1
        if self._layers > self._most_layers:
            raise ModelError(
                f"{self._where} has more than {self._most_layers} layers; it is not loaded. Set "
                f"{_MAX_LAYERS} if it comes from a trusted source"
            )
        outer, self._at = self._at, f"layer {name_of(part) or part['class_name']!r:.80}"
        key = self._key_of_user(part)
        copy = self._stock(part) if key is None else self._part_of_user(part, key)
        if "name" in part:
            copy["name"] = self._plain(part["name"], "name")
        if "inbound_nodes" in part:
            nodes = self._list(part["inbound_nodes"], "inbound_nodes")
            copy["inbound_nodes"] = [self._node(node) for node in nodes]
        if isinstance(part.get("shared_object_id"), int):
            copy["shared_object_id"] = part["shared_object_id"]
        self._at = outer
        return copy

    def _stock(self, part: Part) -> Part:
        kind, module = part["class_name"], part.get("module", "keras.layers")
        if not isinstance(module, str):
            self._refuse(part, "layer")
        if kind in allowed.OPERATIONS.get(module, ()):
            return copy_of(part, module, self._settings(part["config"]))
        if kind != "InputLayer":
            self._check_name(part["config"].get("name"), "layer", LAYER_NAME)
        if kind in allowed.MODELS and module.partition(".")[0] == "keras":
            copy = copy_of(part, _MODEL_MODULES[kind], self._graph(part["config"]))
        elif kind in allowed.LAYERS and f"{module}.".startswith(_LAYER_MODULES):
            copy = copy_of(part, "keras.layers", self._settings(part["config"]))
        elif kind in allowed.OF_APPLICATIONS.get(module, ()):
            copy = copy_of(part, module, self._settings(part["config"]))
        else:
            self._refuse(part, "layer")
        build = part.get("build_config")
        if isinstance(build, dict):
            shapes = {key: build[key] for key in ("input_shape", "shapes_dict") if key in build}
            copy["build_config"] = {key: self._shape(build[key], key) for key in shapes}
        return copy

    def _graph(self, config: Part) -> Part:
        """The settings of a Functional or Sequential model."""
        copy: Part = {}
        for key, value in config.items():
            if key == "layers":
                copy[key] = [self._layer(layer) for layer in self._list(value, key)]
            elif key in ("input_layers", "output_layers"):
                copy[key] = self._plain(value, key)
            else:
                copy[key] = self._setting(key, value, allowed.PLAIN, allowed.MOST)
        return copy

    def _settings(self, config: Part) -> Part:
        return {
            key: self._setting(key, value, allowed.PLAIN, allowed.MOST)
            for key, value in config.items()
        }

    def _setting(self, key: str, value: Any, plain: frozenset[str], most: Mapping[str, int]) -> Any:
        if value is None or (key == "stateful" and value is False):
            return value
        for ending, place in _OBJECTS.items():
            if key.endswith(ending):
                return self.named(value, place)
        if key in ("layer", "backward_layer", "cell"):
            return self._layer(value)
        if key in ("layers", "cells"):
            return [self._layer(layer) for layer in self._list(value, key)]
        if key.endswith("dtype"):
            return self._dtype(value)
        if key == "seed" and isinstance(value, dict):
            return self._seed(value)
        if key in allowed.SHAPES:
            return self._shape(value, key)
        if key in allowed.CHOICES:
            return self._choice(value, key)
        if key == "vocabulary" and isinstance(value, str):
            self._fail(
                f"{self._at} names a vocabulary file outside of the model archive, {value!r:.99}"
            )
        if key in allowed.ARRAYS or key in ("vocabulary", "idf_weights"):
            return self._argument(value)
        if key in most:
            return self._bounded(value, key, most[key])
        if key in plain or key in ("name", "seed"):
            return self._plain(value, key)
        return self._fail(f"{self._at} has a setting {key!r:.80}, which is not on the list")

    def _choice(self, value: Any, key: str) -> Any:
        name = value.get("config") if isinstance(value, dict) else value
        if name is not value and is_of_user(name):
            return {"class_name": "function", "config": name, "registered_name": name}
        if not isinstance(value, str) or not (value in allowed.CHOICES[key] or is_of_user(value)):
            self._fail(f"{self._at} has {key}={value!r:.80}, which is not on the list")
        return value

    def _node(self, node: Any) -> Any:
        """The arguments of one call of a layer; at least one is a tensor of the graph."""
        if isinstance(node, dict):
            copy = {key: self._argument(node.get(key)) for key in ("args", "kwargs")}
            if not _has_tensor(copy):
                self._fail(f"{self._at} is called without a tensor of the graph")
            return copy
        if not (isinstance(node, list) and node):
            self._fail(f"{self._at} is called with {node!r:.80}, not a tensor of the graph")
        return self._plain(node, "inbound_nodes")  # as Keras 2 names tensors

    def _free(self, value: Any) -> Any:
        """The settings of a class of the user's: its own code reads them, parts are looked at."""
        if isinstance(value, list):
            return [self._free(each) for each in value]
        if not isinstance(value, dict):
            return self._plain(value, "setting")
        if "class_name" not in value:
            return {key: self._free(each) for key, each in value.items()}
        kind, module = value["class_name"], value.get("module")
        if isinstance(kind, str) and kind.startswith("__"):
            return self._argument(value)
        if kind == "DTypePolicy":
            return self._dtype(value)
        if kind == "SeedGenerator":
            return self._seed(value)
        for place in _PLACES:
            function = kind == "function" and value.get("config") in place.names
            if function or (kind in place.classes and module == place.module):
                return self.named(value, place)
        if kind == "function":
            return self.named(value, allowed.ACTIVATION)
        return self._layer(value)

    def _check_name(self, name: object, noun: str, pattern: re.Pattern[str]) -> None:
        if isinstance(name, str) and not pattern.fullmatch(name):
            raise ModelError(
                f"{self._where}: the {noun} {name!r:.80} has a name that TensorFlow refuses. Use "
                "letters, digits, '_', '.' and '-' only, and save again"
            )


def _has_tensor(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_tensor(each) for each in value)
    if not isinstance(value, dict):
        return False
    found = value.get("class_name") == "__keras_tensor__"
    return found or any(_has_tensor(each) for each in value.values())


def _layer_limit() -> int:
    given = os.environ.get(_MAX_LAYERS, "").strip() or str(_DEFAULT_LAYERS)
    if not (given.isascii() and given.isdigit()):
        raise SpecError(f"{_MAX_LAYERS} is {given!r:.40}; give a number of layers")
    return int(given)


# What may be missing in a file: state that is not saved, or that older versions of Keras did not.
_ALWAYS_ALLOWED = 1 << 24
_MOST_RATIO = 2
_NOT_MADE = "uninitialized_variables"


def check_size(config: dict[str, Any], stored: int, where: str) -> None:
    """Refuse a model that declares far more weights than its file holds values for.

    Args:
        config: as `checked_model` returns it; it is not changed.
        stored: values in the file of weights.
        where: the file, for messages.

    Raises:
        ModelError: it does, or Keras cannot make a model of the config.
    """
    with without_memory():
        model = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)
        weights = {id(v): v for layer in model._flatten_layers() for v in layer.variables}
        needed = sum(math.prod(variable.shape) for variable in weights.values())
    if needed > max(_MOST_RATIO * stored, _ALWAYS_ALLOWED):
        raise ModelError(
            f"{where} declares {needed} values of weights, but its weights have {stored}; it is "
            "not loaded. Save model and weights again together"
        )


@contextmanager
def without_memory() -> Iterator[None]:
    """Variables made in here have a shape, but no memory, and are forgotten afterwards."""
    state = random.getstate()  # layers draw their seeds from it
    waiting = list(global_state.get_global_attribute(_NOT_MADE) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Otherwise the next such scope of Keras would make them.
        global_state.set_global_attribute(_NOT_MADE, waiting)
        random.setstate(state)
