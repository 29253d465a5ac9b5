"""Keep what C++ code writes to standard error out of what a person reads."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_logger = logging.getLogger("lrf")


@contextmanager
def native_output_logged() -> Iterator[None]:
    """Send what is written to standard error meanwhile to the log (debug).

    TensorFlow, its converter and LiteRT write there whatever any Python logger says.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                _logger.debug("%s", line)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its notices on standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with native_output_logged():
        importlib.import_module("tensorflow")
