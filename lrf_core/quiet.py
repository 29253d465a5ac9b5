"""Keep TensorFlow's start-up chatter out of what a person reads."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its notices on standard error; they are shown if it fails.

    The notices come from C++ before any logging is set up, so no logging option reaches them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            notices.seek(0)
            os.write(kept, notices.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
