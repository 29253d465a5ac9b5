"""Arithmetic on small matrices, as exploration does it: on one BLAS thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lrf_core.exploration.parallel import one_blas_thread


@pytest.fixture(autouse=True, scope="package")
def single_blas_thread() -> Iterator[None]:
    with one_blas_thread():
        yield
