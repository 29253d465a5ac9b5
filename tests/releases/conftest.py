"""Fixtures of these tests."""

from exported_once import conversions, exported_once

__all__ = ["conversions", "exported_once"]
