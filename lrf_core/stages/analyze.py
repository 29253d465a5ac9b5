"""analyze: take inventory of a model and measure it before anything is changed."""

from __future__ import annotations

import fnmatch

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Analysis, LayerRecord, Lineage
from lrf_core.data import Data
from lrf_core.exploration.shards import balanced_shards
from lrf_core.measurement.measure import measure
from lrf_core.models.inventory import take_inventory
from lrf_core.models.load import check_model, model_digest
from lrf_core.models.splice import check_can_be_rebuilt
from lrf_core.models.structure import judged_output, sample_shape
from lrf_core.models.unroll import to_functional
from lrf_core.spec import ExploreSpec

# Samples on which the model must answer alike when it is rebuilt.
CHECKED_SAMPLES = 4


def analyze(
    model: keras.Model, data: Data, *, settings: ExploreSpec | None = None, seed: int = 0
) -> Analysis:
    """List every layer with weights, what it costs and whether it can be factorized.

    Args:
        model: any Keras model that was built; a subclassed one must do nothing but call layers
            and `keras.ops`, see `lrf_core.models.unroll`.
        data: its test samples give the baseline accuracy, if they have labels.
        settings: methods and layers to consider; by default all.
        seed: of everything random.

    Raises:
        ModelError: the model cannot be factorized safely.
        SpecError: an unknown method.
    """
    settings = settings or ExploreSpec()
    given, model = model, to_functional(model)
    check_model(model, f"model '{model.name}'")
    few = data.test.read(np.arange(min(CHECKED_SAMPLES, data.test.count)))
    layers = tuple(
        _selected(record, settings)
        for record in take_inventory(model, methods.chosen(settings.methods), sample_shape(few))
    )
    check_can_be_rebuilt(given, model, [record.name for record in layers if record.methods], few)
    digest = model_digest(model)
    eligible = [record for record in layers if record.methods]
    return Analysis(
        lineage=Lineage(
            inputs={"model": digest, "data": data.digest},
            settings={"explore": settings.model_dump(mode="json", exclude={"cache"}), "seed": seed},
        ),
        model_name=model.name,
        model_digest=digest,
        input_shape=tuple(model.inputs[0].shape),
        output_shape=tuple(model.outputs[judged_output(model) or 0].shape),
        layers=layers,
        baseline=measure(model, data.test),
        # None is empty: each is a process of its own in a pipeline.
        shards=balanced_shards(eligible, max(min(settings.shards, len(eligible)), 1)),
    )


def _selected(record: LayerRecord, settings: ExploreSpec) -> LayerRecord:
    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(record.name, pattern) for pattern in patterns)

    if not record.methods or (matches(settings.layers) and not matches(settings.exclude)):
        return record
    return record.model_copy(update={"methods": (), "reason": "left alone, as the spec asks"})
