"""Requests of many releases, several at a time: each waits for the store most of its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from lrf_core.console.progress import work

# Also the most files in transit at once, which bounds the memory.
WORKERS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parallel(
    act: Callable[[_Item], _Result], items: Sequence[_Item], description: str
) -> list[_Result]:
    """The result for each item, in their order, with progress.

    Raises the first error that comes up; what was not begun then is not done.
    """
    with ThreadPoolExecutor(WORKERS) as pool, work(description, len(items)) as advance:
        futures = [pool.submit(act, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
                advance(1)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]
