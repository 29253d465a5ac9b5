"""The process that reads: it gives up everything else, reads, and writes what it has read."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from lrf_core.sandbox.confine import (
    CALLS,
    FILES,
    Limits,
    confine_calls,
    confine_files,
    confine_writing,
    end_with,
    watch,
)

# Read by Keras when they are there, for things that reading a model needs none of.
_UNUSED = ("matplotlib", "pandas", "sklearn", "tensorboard")


def main(request: dict[str, Any]) -> None:
    """Read the model that a request names; the result is one line of JSON, then raw numbers.

    Args:
        request: what `lrf_core.models.sandboxed` sends.
    """
    end_with(request["parent"])
    writable = [Path(folder) for folder in request["writable"]]
    inputs = [Path(path) for path in request["readable"]]
    files = confine_files(inputs, [*writable, Path(os.devnull)])
    result = request["result"]
    # Python would look for a folder that it can write to, and imports fail without one.
    tempfile.tempdir = os.environ["HOME"]
    for name in _UNUSED:
        sys.modules[name] = None  # type: ignore[assignment] # an import of it fails
    try:
        from lrf_core.errors import LrfError, ModelError
        from lrf_core.models import formats
        from lrf_core.sandbox import carried
    except Exception as error:  # noqa: BLE001 - whatever an import raises behind these walls
        return _write(result, {"broken": f"{type(error).__name__}: {error}"})

    def report(attempt: str) -> NoReturn:
        _write(result, {"attempt": attempt})
        os._exit(0)

    watch(report, writable)
    calls = confine_calls(Limits(**request["limits"]))
    walls = [wall for wall, holds in ((FILES, files), (CALLS, calls)) if holds]
    weights = request["weights"]
    try:
        model, compiled = formats.read_model(
            Path(request["source"]),
            None if weights is None else Path(weights),
            # Without Landlock no file may be written: which one, no filter can see.
            once_copied=_nothing if files else confine_writing,
        )
        header, contents = carried.described(model)
        line = json.dumps({"walls": walls, "model": header, "compiled": compiled}).encode()
    except ModelError as error:
        kind = "exhausted" if _is_exhausted(error) else "refused"
        return _write(result, {"walls": walls, kind: str(error)})
    except LrfError as error:
        return _write(result, {"walls": walls, "unable": str(error)})
    except Exception as error:  # noqa: BLE001 - a file of unknown origin raises anything
        kind = "exhausted" if _is_exhausted(error) else "failed"
        return _write(result, {"walls": walls, kind: f"{type(error).__name__}: {error}"})
    with open(result, "wb", closefd=False) as file:
        file.write(line + b"\n")
        carried.write_contents(contents, file)
    return None


def _nothing() -> None:
    pass


def _write(result: int, found: dict[str, Any]) -> None:
    os.ftruncate(result, 0)
    os.pwrite(result, json.dumps(found).encode() + b"\n", 0)


def _is_exhausted(error: BaseException | None) -> bool:
    """Whether memory ran out, in this error or in one that it stands for."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            return True
        error = error.__cause__ or error.__context__
    return False
