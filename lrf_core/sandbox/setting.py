"""Whether model files are read in the sandbox: the variable `LRF_SANDBOX`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lrf_core.errors import SpecError

VARIABLE = "LRF_SANDBOX"
_VALUES = {"": False, "0": False, "1": True}


def sandbox_is_on() -> bool:
    """What `LRF_SANDBOX` says; without it, off. Raises SpecError for values but 0 and 1."""
    value = os.environ.get(VARIABLE, "")
    if value not in _VALUES:
        raise SpecError(f"{VARIABLE} is {value!r:.40}; set 1 (read models in a sandbox) or 0")
    return _VALUES[value]


@contextmanager
def sandbox_default(on: bool) -> Iterator[None]:
    """Meanwhile, read models in the sandbox or not, unless `LRF_SANDBOX` says."""
    if os.environ.get(VARIABLE):
        yield
    else:
        with sandbox_switched(on):
            yield


@contextmanager
def sandbox_switched(on: bool | None) -> Iterator[None]:
    """Meanwhile, read models in the sandbox or not, in this process and those that it starts.

    Args:
        on: None changes nothing.
    """
    before = os.environ.get(VARIABLE)
    if on is not None:
        os.environ[VARIABLE] = "1" if on else "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
