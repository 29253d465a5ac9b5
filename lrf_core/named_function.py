"""Functions of the user's own, named `module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lrf_core.errors import BadInputError

PATTERN = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """While open, modules in the working directory can be imported.

    The installed `lrf` command does not have it on sys.path, unlike `python -m`.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def function_named(source: str, error: type[BadInputError]) -> Callable[..., Any]:
    """Import the function that `module:function` names.

    Args:
        error: what to raise when there is no such module or function, or importing it fails.
    """
    module_name, _, name = source.partition(":")
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except Exception as cause:
        if isinstance(cause, ModuleNotFoundError) and cause.name in _packages(module_name):
            raise error(
                f"{source}: no module '{module_name}' in {Path.cwd()} or installed"
            ) from None
        raise error(f"{source}: importing the module failed: {summarize_error(cause)}") from cause
    function = getattr(module, name, None)
    if not callable(function):
        raise error(f"{source}: module '{module_name}' has no function '{name}'")
    return function  # type: ignore[no-any-return]


def summarize_error(error: Exception) -> str:
    """An exception of the user's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _packages(module_name: str) -> set[str]:
    parts = module_name.split(".")
    return {".".join(parts[: i + 1]) for i in range(len(parts))}
