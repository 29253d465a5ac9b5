"""What can go wrong, one class per cause; each message says what, where, and what to do."""

from __future__ import annotations

import errno

from lrf_core.redaction import redacted

# Exit codes of the command line and of the pipeline runner.
EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_GATE_REFUSED = 3
# By Ctrl-C; after SIGTERM it is 143.
EXIT_INTERRUPTED = 130

# What a disk that is full or read-only says; no fault of what is read meanwhile.
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class LrfError(Exception):
    """Base of every error that lrf raises on purpose.

    The message is one line for a user, without secrets. `exit_code` is what a command ends with.
    """

    exit_code = EXIT_FAILURE

    def __init__(self, message: str) -> None:
        # Here, since messages go on to logs, artifacts, registries and annotations.
        super().__init__(redacted(message))


class BadInputError(LrfError):
    """Something the user gave cannot be used as it is."""

    exit_code = EXIT_BAD_INPUT


class SpecError(BadInputError):
    """The spec has an unknown key, a wrong type or a value out of range."""


class ModelError(BadInputError):
    """The model cannot be read, is unsafe to read, or is of a kind that cannot be factorized."""


class DataError(BadInputError):
    """The samples cannot be read or do not fit the model."""


class GoalError(BadInputError):
    """No plan can meet the goal; the message gives the nearest reachable values."""


class ArtifactError(BadInputError):
    """An artifact is missing, damaged, or was made from other inputs than those given."""


class BusyError(LrfError):
    """Another run is writing to the same place; the same may succeed later."""


class CredentialError(BadInputError):
    """A password, a token or a key cannot be used as it was given."""


class StorageError(BadInputError):
    """Object storage cannot be reached, refuses the credentials, or cannot be written."""


class UnreachableStorageError(StorageError):
    """Object storage does not answer, or fails; the same may succeed later."""

    exit_code = EXIT_FAILURE


class ClusterError(BadInputError):
    """The Kubernetes API is not configured, or rejects a request."""


class UnreachableClusterError(ClusterError):
    """The Kubernetes API does not answer; the same may succeed later."""

    exit_code = EXIT_FAILURE


class PublishRefusedError(LrfError):
    """The model to publish has no passing Verdict of its own."""

    exit_code = EXIT_GATE_REFUSED


class SpliceError(LrfError):
    """The rebuilt model does not answer as its factors say it must; it is never shipped."""


class ExportError(LrfError):
    """The model cannot be converted to, or run in, the runtime that is to serve it."""


class SandboxError(LrfError):
    """The process that reads model files cannot be started, or not import what it needs."""


class WorkerError(LrfError):
    """A worker of fine-tuning failed; where it said why, these are its message and exit code."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class PromotionError(LrfError):
    """A release was not promoted; the message says what is served now."""
