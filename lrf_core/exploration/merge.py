"""The shards of one exploration as one design space."""

from __future__ import annotations

from collections.abc import Sequence

from lrf_core.artifacts import DesignSpace, Lineage
from lrf_core.errors import ArtifactError


def merged(spaces: Sequence[DesignSpace]) -> DesignSpace:
    """Join design spaces that were explored side by side.

    Raises:
        ArtifactError: none given, of different models or samples, or a layer in more than one.
    """
    if not spaces:
        raise ArtifactError("no design space given; run explore first")
    first = spaces[0]
    for space in spaces:
        if space.model_digest != first.model_digest:
            raise ArtifactError(
                f"a design space is of model {space.model_digest[:12]}, another of "
                f"{first.model_digest[:12]}; explore one model"
            )
        if (space.calibration_digest, space.similarity) != (
            first.calibration_digest,
            first.similarity,
        ):
            raise ArtifactError(
                "the design spaces were made with different calibration samples or similarities; "
                "explore every shard with the same data and settings"
            )
    layers = tuple(name for space in spaces for name in space.layers)
    if len(layers) != len(set(layers)):
        raise ArtifactError("a layer is in more than one design space; give each shard once")
    shards = {f"shard_{i}": space.lineage.key() for i, space in enumerate(spaces)}
    return first.model_copy(
        update={
            "lineage": Lineage(
                inputs={**first.lineage.inputs, **shards},
                settings={**first.lineage.settings, "shard": None},
                parent=first.lineage.parent,
            ),
            "layers": layers,
            "candidates": tuple(candidate for space in spaces for candidate in space.candidates),
            "latency_ms": {k: ms for space in spaces for k, ms in space.latency_ms.items()},
        }
    )
