"""Work on layers side by side: one thread a core, and one BLAS thread in each.

Layers differ in size and their matrices are small; BLAS threads of their own would fight over the
cores (measured on 2 cores: 48 times slower while the machine was otherwise busy).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from threadpoolctl import threadpool_limits

from lrf_core.console.progress import work

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def one_blas_thread() -> threadpool_limits:
    """A context in which BLAS keeps to the thread that calls it."""
    return threadpool_limits(1, user_api="blas")


def parallel_map(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    *,
    sizes: Sequence[int] | None = None,
    most: int = 0,
) -> Iterator[tuple[int, _Result]]:
    """Yield `(index, function(items[index]))` on all cores, each as soon as it is done.

    Items are begun in their order. What has not begun when one fails, or when the caller stops
    asking, is left undone.

    Args:
        sizes: bytes that each item takes while it is worked on; by default they do not matter.
        most: bytes of the items that are worked on at once; one that takes more is alone.
    """
    cores = len(os.sched_getaffinity(0))
    free, changed = most, threading.Condition()

    def within_memory(item: _Item, size: int) -> _Result:
        nonlocal free
        with changed:
            changed.wait_for(lambda: free >= size)
            free -= size
        try:
            return function(item)
        finally:
            with changed:
                free += size
                changed.notify_all()

    needed = [min(size, most) for size in sizes or [0] * len(items)]
    with one_blas_thread(), ThreadPoolExecutor(cores) as pool:
        futures = {
            pool.submit(within_memory, item, size): index
            for index, (item, size) in enumerate(zip(items, needed, strict=True))
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def map_side_by_side(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    description: str,
    *,
    sizes: Sequence[int] | None = None,
    most: int = 0,
) -> list[_Result]:
    """`[function(item) for item in items]`, as `parallel_map` does it, with progress."""
    results: dict[int, _Result] = {}
    with work(description, len(items)) as advance:
        for index, result in parallel_map(function, items, sizes=sizes, most=most):
            results[index] = result
            advance(1)
    return [results[index] for index in range(len(items))]
