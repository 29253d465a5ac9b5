"""The fixtures of `promotions`, for all tests here."""

from __future__ import annotations

from promotions import made, raw, world

__all__ = ["made", "raw", "world"]
