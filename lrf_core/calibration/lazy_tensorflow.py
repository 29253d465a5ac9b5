"""TensorFlow, imported on first use: the stages that need none also run where Keras runs on JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["tf"]

if TYPE_CHECKING:
    import tensorflow as tf
else:

    class _Lazy:
        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module("tensorflow"), name)

    tf = _Lazy()
