"""The analyze component."""

from components.analyze.component import analyze

__all__ = ["analyze"]
