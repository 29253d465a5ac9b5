"""How many values a model's weights have, before memory is taken for any of them."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.backend.common import global_state

from lrf_core.errors import ModelError

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
