"""The model that is trained: a copy of the student, with the teacher beside it where needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from lrf_core.models.precision import with_policy
from lrf_core.models.rebuild import new_input
from lrf_core.models.splice import splice
from lrf_core.models.structure import input_structure
from lrf_core.spec import FinetuneSpec
from lrf_core.training.objective import Targets, logits_of, map_distance
from lrf_core.training.schedule import cosine


@dataclass(frozen=True)
class TrainerBundle:
    """What `fit` is called on.

    Attributes:
        model: the copy whose weights are trained.
        trainer: compiled; answers what `Targets.loss` takes.
    """

    model: keras.Model
    trainer: keras.Model

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        return self.trainer.optimizer


def make_learner(
    student: keras.Model,
    teacher: keras.Model,
    targets: Targets,
    settings: FinetuneSpec,
    steps: int,
) -> TrainerBundle:
    """A copy of the student, compiled for training.

    Args:
        teacher: is called beside it in each step, unless its answers are cached in the targets.
        settings: resolved, see `schedule.resolved`.
        steps: of the whole training.
    """
    model = with_policy(splice(student, {}), settings.precision)
    if targets.cached:
        trainer = keras.Model(input_structure(model), model.outputs[0], name="trainer")
    else:
        beside = with_policy(splice(teacher, {}), settings.precision)
        maps = factorized_maps(student, teacher) if targets.objective.features else ()
        trainer = _side_by_side(model, beside, maps, targets.teacher_probabilities)
    trainer.compile(_optimizer(model, settings, steps), targets.loss, jit_compile=jit())
    return TrainerBundle(model, trainer)


def factorized_maps(student: keras.Model, teacher: keras.Model) -> tuple[str, ...]:
    """Names of the layers whose place a chain has taken; not those inside nested models.

    The last layer of a chain has the name of the layer that it replaces.
    """
    originals = {layer.name: layer for layer in teacher.layers}
    return tuple(
        layer.name
        for layer in student.layers
        if hasattr(layer, "kernel")
        and layer.name in originals
        and getattr(originals[layer.name], "kernel", layer.kernel).shape != layer.kernel.shape
    )


def jit() -> bool | str:
    """Whether to compile with XLA."""
    # It takes longer to compile a small model on a CPU than it saves; Keras' other backends would
    # run uncompiled without it.
    if keras.config.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return False
    return "auto"


def _side_by_side(
    student: keras.Model, teacher: keras.Model, maps: Sequence[str], probabilities: bool
) -> keras.Model:
    """A model that answers student, teacher's logits and map distance, `(n, 2 * classes + 1)`."""
    inputs = keras.tree.map_structure(new_input, input_structure(student))
    teacher.trainable = False
    answers, *learnt = _with_maps(student, maps, "student")(inputs)
    given, *wanted = _with_maps(teacher, maps, "teacher")(inputs, training=False)
    answers, given = (keras.ops.cast(values, "float32") for values in (answers, given))
    distances = [map_distance(one, other) for one, other in zip(learnt, wanted, strict=True)]
    if distances:
        distance = sum(distances[1:], distances[0]) / len(distances)
    else:
        distance = keras.ops.zeros_like(answers[:, 0])
    parts = [answers, logits_of(given) if probabilities else given, distance[:, None]]
    return keras.Model(inputs, keras.ops.concatenate(parts, axis=-1), name="trainer")


def _with_maps(model: keras.Model, maps: Sequence[str], name: str) -> keras.Model:
    found = [model.get_layer(layer).output for layer in maps]
    return keras.Model(input_structure(model), [model.outputs[0], *found], name=name)


def _optimizer(model: keras.Model, settings: FinetuneSpec, steps: int) -> Any:
    """AdamW that decays kernels and factors alone.

    References:
        Loshchilov, Hutter, "Decoupled Weight Decay Regularization" (2019).
    """
    rate = settings.learning_rate or 0.0
    optimizer = keras.optimizers.AdamW(
        cosine(rate, steps),
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[
            weight
            for weight in model.trainable_weights
            if weight.name == "bias" or len(weight.shape) < 2
        ]
    )
    if settings.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
