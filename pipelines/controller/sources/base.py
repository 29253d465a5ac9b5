"""What all sources have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipelines.controller.outcome import Outcome

SUFFIXES = (".keras", ".h5")


@dataclass(frozen=True)
class Asked:
    """A model that asks for compression.

    Attributes:
        reference: what it is called in its source.
        model: address of its file, or of a folder with one.
        spec: name of the spec asked for.
        name: to release it under; None for the one in the spec, else `default_name`.
        default_name: None for the model's own.
        mark: changes with the model's content, where the source sees that; empty otherwise.
        problem: why it cannot be done, where the source sees that; empty otherwise.
    """

    reference: str
    model: str
    spec: str
    name: str | None = None
    default_name: str | None = None
    mark: str = ""
    problem: str = ""


class Source(Protocol):
    """Raises LrfError when it cannot be reached, in bounded time."""

    @property
    def uri(self) -> str:
        """As in the settings; names the source in logs and metrics."""

    def asked(self) -> Iterator[Asked]:
        """All models that ask, the old ones too."""

    def fetches(self, model: str) -> bool:
        """Whether only the source itself can read what is at this address."""

    def fetch(self, model: str, folder: Path) -> None:
        """Write what is there into a folder."""

    def tell(self, outcome: Outcome) -> None:
        """Write back where a model stands, where people look for it; may be told twice."""


def is_model(key: str) -> bool:
    """Whether the name is that of a whole model, not of weights alone."""
    return key.endswith(SUFFIXES) and not key.endswith(".weights.h5")
