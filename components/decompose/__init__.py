"""The decompose component."""

from components.decompose.component import decompose

__all__ = ["decompose"]
