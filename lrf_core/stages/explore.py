"""explore: score every candidate of the eligible layers on calibration samples."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from functools import partial

import keras

from lrf_core.artifacts import Analysis, Candidate, DesignSpace, LayerRecord, Lineage
from lrf_core.calibration import (
    calibrated_groups,
    calibration_samples,
    check_calibration_samples,
    samples_digest,
)
from lrf_core.data import Data
from lrf_core.errors import ArtifactError, SpecError
from lrf_core.exploration import similarity
from lrf_core.exploration.feature_map import FeatureMap, feature_maps
from lrf_core.exploration.parallel import map_side_by_side
from lrf_core.exploration.score import log_stand_ins, score_layer
from lrf_core.methods import Moments
from lrf_core.models.load import model_digest
from lrf_core.models.trace import walk
from lrf_core.models.unroll import as_graph
from lrf_core.spec import ExploreSpec

_logger = logging.getLogger("lrf")


def explore(
    model: keras.Model,
    data: Data,
    analysis: Analysis,
    *,
    settings: ExploreSpec | None = None,
    shard: int | None = None,
    seed: int = 0,
) -> DesignSpace:
    """Score the candidates of every eligible layer, or of those in one shard.

    Args:
        analysis: of this very model.
        shard: index into `analysis.shards`; None explores all.

    Raises:
        ArtifactError: the analysis is of another model.
        DataError: too few or unusable calibration samples.
    """
    settings = settings or ExploreSpec()
    model = as_graph(model)
    digest = model_digest(model)
    if analysis.model_digest != digest:
        raise ArtifactError(
            f"the analysis is of model {analysis.model_digest[:12]}, not of '{model.name}' "
            f"({digest[:12]}); run analyze on this model"
        )
    wanted = _layers_of_shard(analysis, shard)
    records = [record for record in analysis.eligible() if record.name in wanted]
    layers = {path: layer for path, layer in walk(model) if path in wanted}
    samples = calibration_samples(data, settings.samples, seed)
    check_calibration_samples(samples, data.source)
    log_stand_ins(records, settings.similarity)
    judged_on = feature_maps(model, layers)
    by_layer: list[list[Candidate]] = []
    for moments in calibrated_groups(
        model,
        records,
        samples,
        eligible=analysis.eligible(),
        memory_bytes=int(settings.memory_gib * 2**30),
        batch_size=settings.batch_size,
        seed=seed,
        loss=settings.loss,
        window=similarity.get(settings.similarity).window,
    ):
        scored = partial(_scored, settings, layers, judged_on, moments)
        group = [record for record in records if record.name in moments]
        by_layer += map_side_by_side(scored, group, "Scoring candidates")
    space = DesignSpace(
        lineage=Lineage(
            inputs={"model": digest, "data": data.digest, "analysis": analysis.digest()},
            settings={
                "explore": settings.model_dump(mode="json"),
                "shard": shard,
                "seed": seed,
            },
            parent=analysis.digest(),
        ),
        model_digest=digest,
        calibration_digest=samples_digest(samples),
        similarity=settings.similarity,
        layers=tuple(record.name for record in records),
        candidates=tuple(itertools.chain.from_iterable(by_layer)),
    )
    if space.without_gradient():
        _logger.warning(
            "no gradient of the loss reaches %s: sensitivity is off there, the output error stands "
            "in for it",
            ", ".join(space.without_gradient()),
        )
    return space


def _scored(
    settings: ExploreSpec,
    layers: Mapping[str, keras.Layer],
    judged_on: Mapping[str, FeatureMap],
    moments: Mapping[str, Moments],
    record: LayerRecord,
) -> list[Candidate]:
    return score_layer(
        record,
        layers[record.name],
        moments[record.name],
        per_mode=settings.ranks_per_mode,
        similarity=settings.similarity,
        feature_map=judged_on[record.name],
    )


def _layers_of_shard(analysis: Analysis, shard: int | None) -> frozenset[str]:
    if shard is None:
        return frozenset(record.name for record in analysis.eligible())
    if not 0 <= shard < len(analysis.shards):
        raise SpecError(f"shard {shard} of {len(analysis.shards)}: count from 0")
    return frozenset(analysis.shards[shard])
