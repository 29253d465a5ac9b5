"""Work on layers side by side: one thread a core, and one BLAS thread in each.

Layers differ in size and their matrices are small; BLAS threads of their own would fight over the
cores (measured on 2 cores: 48 times slower while the machine was otherwise busy).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from lrf_core.progress import work

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def one_blas_thread() -> threadpool_limits:
    """A context in which BLAS keeps to the thread that calls it."""
    return threadpool_limits(1, user_api="blas")


def map_side_by_side(
    function: Callable[[_Item], _Result], items: Sequence[_Item], description: str
) -> list[_Result]:
    """`[function(item) for item in items]`, on all cores, with progress."""
    cores = len(os.sched_getaffinity(0))
    with (
        work(description, len(items)) as advance,
        one_blas_thread(),
        ThreadPoolExecutor(cores) as pool,
    ):
        results = []
        for result in pool.map(function, items):
            results.append(result)
            advance(1)
        return results
