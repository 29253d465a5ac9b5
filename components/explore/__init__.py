"""The explore component."""

from components.explore.component import explore

__all__ = ["explore"]
