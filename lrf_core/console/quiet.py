"""Keep what C++ code writes to standard output and error out of what people and scripts read."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from lrf_core.console import interrupts

_logger = logging.getLogger("lrf")


@contextmanager
def native_output_logged(descriptor: int = 2) -> Iterator[None]:
    """Send what is written to standard error (or output: 1) meanwhile to the log (debug).

    TensorFlow, its converter and LiteRT write to standard error whatever any Python logger says,
    HiGHS now and then to standard output.
    """
    stream = sys.stdout if descriptor == 1 else sys.stderr
    stream.flush()
    terminal = os.dup(descriptor)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), descriptor)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(terminal, descriptor)
            os.close(terminal)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                _logger.debug("%s", line)


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its notices on standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with native_output_logged(), interrupts.at_once():
        importlib.import_module("tensorflow")
