"""The compress_model component."""

from components.compress_model.component import compress_model

__all__ = ["compress_model"]
