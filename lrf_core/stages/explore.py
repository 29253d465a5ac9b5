"""explore: score every candidate of the eligible layers on calibration samples."""

from __future__ import annotations

import hashlib
import itertools

import keras

from lrf_core.artifacts import Analysis, Candidate, DesignSpace, LayerRecord, Lineage
from lrf_core.calibration import collect_moments
from lrf_core.data import Data
from lrf_core.errors import ArtifactError, DataError, SpecError
from lrf_core.exploration.parallel import map_side_by_side
from lrf_core.exploration.score import score_layer
from lrf_core.latency import latency_table, with_latencies
from lrf_core.models.load import model_digest
from lrf_core.models.trace import walk
from lrf_core.models.unroll import as_graph
from lrf_core.spec import ExploreSpec
from lrf_core.structure import Samples


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
        ArtifactError: the analysis or the latency table is of another model.
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
    latencies = latency_table(settings, model, records, layers)
    samples = calibration_samples(data, settings.samples, seed)
    moments = collect_moments(model, layers, samples, batch_size=settings.batch_size, seed=seed)

    def scored(record: LayerRecord) -> list[Candidate]:
        return score_layer(
            record,
            layers[record.name],
            moments[record.name],
            per_mode=settings.ranks_per_mode,
            similarity=settings.similarity,
        )

    by_layer = map_side_by_side(scored, records, "Scoring candidates")
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
    return with_latencies(space, records, layers, latencies)


def calibration_samples(data: Data, count: int, seed: int) -> Samples:
    """Seeded training samples, `(count, *input_shape)`. Raises DataError when there are too few."""
    if data.train.count < count:
        raise DataError(
            f"{data.source} has {data.train.count} training samples, explore.samples asks for "
            f"{count}; lower it or give more data"
        )
    samples, _ = data.train.sample(count, seed).arrays()
    return samples


def samples_digest(samples: Samples) -> str:
    """sha256 (hex) of samples, with their shape and dtype."""
    digest = hashlib.sha256()
    for values in keras.tree.flatten(samples):
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _layers_of_shard(analysis: Analysis, shard: int | None) -> frozenset[str]:
    if shard is None:
        return frozenset(record.name for record in analysis.eligible())
    if not 0 <= shard < len(analysis.shards):
        raise SpecError(f"shard {shard} of {len(analysis.shards)}: count from 0")
    return frozenset(analysis.shards[shard])
