"""Results that a sweep keeps: the last few of a costly function."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Kept(Generic[_Key, _Value]):
    """The last results by key, like `functools.lru_cache`.

    That one, around a method, holds the object that holds it: a cycle, which would keep gigabytes
    of arrays until the garbage collector happens to run. Here the function is given with the key.

    Args:
        most: results kept; None for all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._values: OrderedDict[_Key, _Value] = OrderedDict()

    def of(self, key: _Key, make: Callable[[_Key], _Value]) -> _Value:
        """What is kept for the key, or what the function makes of it now."""
        if key not in self._values:
            made = make(key)
            self._values[key] = made
            while self._most is not None and len(self._values) > self._most:
                self._values.popitem(last=False)
            return made
        self._values.move_to_end(key)
        return self._values[key]
