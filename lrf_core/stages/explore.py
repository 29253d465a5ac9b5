"""explore: score every candidate of the eligible layers on calibration samples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras

from lrf_core import methods, similarity, telemetry
from lrf_core.artifacts import Analysis, Candidate, DesignSpace, LayerRecord, Lineage
from lrf_core.calibration import (
    calibrated_groups,
    calibration_samples,
    check_calibration_samples,
    samples_digest,
)
from lrf_core.calibration.memory import bytes_of_arithmetic, bytes_of_moments
from lrf_core.console.progress import work
from lrf_core.data import Data
from lrf_core.errors import ArtifactError
from lrf_core.exploration.cache import (
    Address,
    ScoreCache,
    addresses_of,
    calibration_digest,
    open_cache,
)
from lrf_core.exploration.feature_map import FeatureMap, feature_maps
from lrf_core.exploration.merge import in_order
from lrf_core.exploration.parallel import parallel_map
from lrf_core.exploration.score import log_stand_ins, score_layer
from lrf_core.exploration.shards import Shard, exploring_seconds, layers_of
from lrf_core.latency import latency_table, with_latencies
from lrf_core.methods import Moments
from lrf_core.models.load import model_digest
from lrf_core.models.trace import walk
from lrf_core.models.unroll import to_functional
from lrf_core.spec import ExploreSpec

_logger = logging.getLogger("lrf")

# Candidates by layer and method.
_Scores = dict[tuple[str, str], tuple[Candidate, ...]]


def explore(
    model: keras.Model,
    data: Data,
    analysis: Analysis,
    *,
    settings: ExploreSpec | None = None,
    shard: Shard | None = None,
    seed: int = 0,
) -> DesignSpace:
    """Score the candidates of every eligible layer, or of those in one shard.

    With `settings.cache`, what is in the cache is not scored again, and what is scored is there at
    once: after an interruption the same call goes on where it stopped.

    Args:
        model: any Keras model that was built; it is not changed.
        data: the calibration samples are drawn from its training part; labels are not needed.
        analysis: of this very model.
        settings: `methods` are those of the analysis, or some of them.
        shard: which part of the layers, of any number of parts; None explores all. All parts
            together hold the same candidates as one exploration of all layers.
        seed: of everything random.

    Raises:
        ArtifactError: the analysis or the latency table is of another model.
        DataError: too few or unusable calibration samples.
        StorageError: the cache cannot be read or written.
    """
    settings = settings or ExploreSpec()
    cache = open_cache(settings.cache) if settings.cache else None
    model = to_functional(model)
    digest = model_digest(model)
    if analysis.model_digest != digest:
        raise ArtifactError(
            f"the analysis is of model {analysis.model_digest[:12]}, not of '{model.name}' "
            f"({digest[:12]}); run analyze on this model"
        )
    eligible = tuple(record.name for record in analysis.eligible())
    wanted = layers_of(analysis.eligible(), shard)
    layers = {path: layer for path, layer in walk(model) if path in eligible}
    records = [record for record in analysis.eligible() if record.name in wanted]
    latencies = latency_table(settings, model, records, layers)
    samples = calibration_samples(data, settings.samples, seed)
    check_calibration_samples(samples, data.source)
    drawn = samples_digest(samples)
    log_stand_ins(records, settings.similarity)
    judged_on = feature_maps(model, layers)
    tasks = [
        _Task(
            record.model_copy(update={"methods": (name,)}),
            layers[record.name],
            judged_on[record.name],
            address,
        )
        for record in _with_methods(records, settings)
        for name, address in addresses_of(
            record,
            layers[record.name],
            calibration_digest(digest, drawn, eligible, seed),
            settings.scoring(),
        ).items()
    ]
    scores = _cached(tasks, cache)
    missing = [task for task in tasks if task.key not in scores]
    left = {task.record.name for task in missing}
    for moments in calibrated_groups(
        model,
        [record for record in records if record.name in left],
        samples,
        eligible=analysis.eligible(),
        memory_bytes=settings.memory_bytes,
        batch_size=settings.batch_size,
        seed=seed,
        loss=settings.loss,
        window=similarity.get(settings.similarity).window,
    ):
        some = [task for task in missing if task.record.name in moments]
        scores.update(_scored(some, moments, settings, cache, samples.count))
    space = DesignSpace(
        lineage=Lineage(
            inputs={"model": digest, "data": data.digest, "analysis": analysis.digest()},
            settings={
                "explore": settings.decisive(),
                "shard": None if shard is None else str(shard),
                "seed": seed,
            },
            parent=analysis.digest(),
        ),
        model_digest=digest,
        calibration_digest=drawn,
        similarity=settings.similarity,
        layers=wanted,
        eligible=eligible,
        candidates=in_order((c for found in scores.values() for c in found), eligible),
    )
    if space.without_gradient():
        _logger.warning(
            "no gradient of the loss reaches %s: sensitivity is off there, the output error stands "
            "in for it",
            ", ".join(space.without_gradient()),
        )
    return with_latencies(space, records, layers, latencies)


@dataclass(frozen=True)
class _Task:
    """Score one layer by one method: the only one in `record.methods`."""

    record: LayerRecord
    layer: keras.Layer
    judged_on: FeatureMap
    address: Address

    @property
    def key(self) -> tuple[str, str]:
        return self.record.name, self.address.method


def _with_methods(records: Sequence[LayerRecord], settings: ExploreSpec) -> Iterator[LayerRecord]:
    """The layers, with those of their methods that the settings name."""
    wanted = methods.chosen(settings.methods)
    for record in records:
        names = tuple(name for name in record.methods if name in wanted)
        yield record.model_copy(update={"methods": names})


def _cached(tasks: Sequence[_Task], cache: ScoreCache | None) -> _Scores:
    """What is known already, said in one line."""
    if cache is None:
        return {}
    found = cache.find([task.address for task in tasks])
    scores = {
        task.key: candidates
        for task, candidates in zip(tasks, found, strict=True)
        if candidates is not None
    }
    telemetry.count_cached("scores", len(scores), len(tasks) - len(scores))
    if scores:
        left = len({task.record.name for task in tasks if task.key not in scores})
        _logger.info(
            "%d of %d scores (layer and method) are in the cache %s; %d layers are left",
            len(scores),
            len(tasks),
            cache.store.url(),
            left,
        )
    return scores


def _scored(
    tasks: Sequence[_Task],
    moments: Mapping[str, Moments],
    settings: ExploreSpec,
    cache: ScoreCache | None,
    samples: int,
) -> _Scores:
    """Score tasks side by side, layers that take long first; each is in the cache when done."""
    records = {task.record.name: task.record for task in tasks}.values()
    held = sum(bytes_of_moments(record, samples) for record in records)

    def score(task: _Task) -> tuple[Candidate, ...]:
        _logger.debug("scoring '%s' by %s", *task.key)
        candidates = score_layer(
            task.record,
            task.layer,
            moments[task.record.name],
            per_mode=settings.ranks_per_mode,
            similarity=settings.similarity,
            feature_map=task.judged_on,
            fit_to=settings.factors,
        )
        if cache:
            cache.keep(task.address, candidates)
        _logger.debug("scored '%s' by %s", *task.key)
        return tuple(candidates)

    scores: _Scores = {}
    unfinished = Counter(task.record.name for task in tasks)
    ordered = _longest_first(tasks)
    with work("Scoring layers", len(unfinished)) as advance:
        sizes = [bytes_of_arithmetic(task.record, samples) for task in ordered]
        free = settings.memory_bytes - held
        for index, candidates in parallel_map(score, ordered, sizes=sizes, most=free):
            task = ordered[index]
            scores[task.key] = candidates
            telemetry.count_scored(task.address.method, len(candidates))
            unfinished[task.record.name] -= 1
            advance(int(unfinished[task.record.name] == 0))
    return scores


def _longest_first(tasks: Sequence[_Task]) -> list[_Task]:
    """So that all cores end at about the same time; the methods of a large layer, which take the
    most memory, seldom run side by side."""
    return sorted(tasks, key=lambda task: (-exploring_seconds(task.record), *task.key))
