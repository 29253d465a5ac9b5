"""Which names are those of model files: one rule for everything that looks for them."""

from __future__ import annotations

from collections.abc import Iterable

SUFFIXES = (".keras", ".h5", ".hdf5")


def is_model_name(name: str) -> bool:
    """Whether the name is that of a whole model, not of weights alone."""
    return name.lower().endswith(SUFFIXES) and not name.lower().endswith(".weights.h5")


def only_model(names: Iterable[str]) -> str | None:
    """The only name of a whole model; `model.keras` of several; None if there is none.

    Raises:
        ValueError: several, none of them `model.keras`; the message lists them.
    """
    found = sorted(filter(is_model_name, names))
    preferred = [name for name in found if name.rpartition("/")[2] == "model.keras"]
    if len(preferred) == 1:
        return preferred[0]
    if len(found) > 1:
        listed = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise ValueError(f"holds {len(found)} model files ({listed}); name one of them")
    return found[0] if found else None
