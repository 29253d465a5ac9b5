"""The publish component."""

from components.publish.component import publish

__all__ = ["publish"]
