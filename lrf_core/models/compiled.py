"""The loss and the metrics that a model was compiled with."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.errors import ModelError
from lrf_core.models.allowed import LOSS, METRIC
from lrf_core.models.safety import checked_compiled

_logger = logging.getLogger("lrf")
Array = npt.NDArray[Any]
_UNUSABLE = (ModelError, ValueError, TypeError, KeyError, RecursionError)


@dataclass(frozen=True)
class Compiled:
    """What a model was trained for.

    Attributes:
        loss: a keras.losses.Loss, a function of (targets, answers), or None for no single loss.
        metrics: names, serialized metrics or metric objects, as `keras.Model.compile` takes them.
    """

    loss: Any = None
    metrics: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Of the loss; empty if there is none."""
        return str(getattr(self.loss, "name", None) or getattr(self.loss, "__name__", ""))

    @property
    def sparse(self) -> bool:
        """Whether the loss takes class ids, not one-hot labels."""
        return not self.name or "sparse" in self.name

    def config(self) -> dict[str, Any] | None:
        """Loss and metrics as JSON, for `compiled_from`; None if there is no loss."""
        if self.loss is None:
            return None
        metrics = [_as_json(metric, keras.metrics) for metric in self.metrics]
        return {"loss": _as_json(self.loss, keras.losses), "metrics": metrics}

    def losses(self, labels: Any, answers: Any) -> Any:
        """The loss, sample by sample `(n,)`.

        Args:
            labels: class ids `(n,)`.
            answers: `(n, classes)`.
        """
        targets = labels if self.sparse else keras.ops.one_hot(labels, answers.shape[-1])
        return self.loss(targets, answers)

    def measured(self, labels: Array, answers: Array) -> dict[str, float]:
        """The metrics by name; none, with a warning, where one cannot be measured.

        Args:
            labels: class ids `(n,)`.
            answers: `(n, classes)`.
        """
        if not self.metrics:
            return {}
        targets = labels if self.sparse else np.eye(answers.shape[-1], dtype=np.float32)[labels]
        same = keras.Sequential([keras.Input(answers.shape[1:]), keras.layers.Identity()])
        try:
            same.compile(loss=_no_loss, metrics=list(self.metrics), jit_compile=False)
            found = same.evaluate(answers, targets, verbose=0, return_dict=True)
        except Exception as error:  # noqa: BLE001 - code of one's own may raise anything
            reason = " ".join(str(error).split())[:200]
            _logger.warning("the model's own metrics are not measured: %s", reason)
            return {}
        return {name: float(value) for name, value in found.items() if name != "loss"}


def _no_loss(targets: Any, answers: Any) -> Any:
    return keras.ops.zeros_like(answers[:, 0])  # Keras evaluates no metric without a loss


def compiled_of(model: keras.Model) -> Compiled:
    """What a model in memory is compiled with; nothing if it is not."""
    if not model.compiled or model.loss is None:
        return Compiled()
    metrics = (model.get_compile_config() or {}).get("metrics")
    return _compiled(model.loss, metrics)


def compile_as(model: keras.Model, config: Mapping[str, Any] | None, source: str) -> None:
    """Compile a model with the loss and the metrics of a compile config, which may be hostile.

    Args:
        model: with one output; others are left as they are.
        config: as a model file holds it; nothing happens without one, or without a loss in it.
        source: of the model, for messages.

    Only losses and metrics that `allowed.LOSS` and `allowed.METRIC` list, or that are registered in
    this process, are made; a warning names others, and the model is not compiled then.
    """
    if not config or config.get("loss") is None:
        return
    try:
        loss, metrics = _checked(config, source)
        if _are_several(loss):
            _logger.warning("%s was compiled with several losses; cross-entropy is used", source)
        else:
            model.compile(loss=loss, metrics=[_made_metric(each) for each in metrics])
    except _UNUSABLE as error:
        reason = " ".join(str(error).split())[:200]
        _logger.warning("%s: its own loss is not used, cross-entropy is: %s", source, reason)


def compiled_from(config: Mapping[str, Any] | None) -> Compiled:
    """What `Compiled.config` wrote in another process.

    Raises:
        ModelError: a loss or metric that is not from Keras, and not registered here.
    """
    if config is None:
        return Compiled()
    try:
        return _compiled(*_checked(config, "the model in memory"))
    except _UNUSABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"workers cannot make the loss or the metrics of the model: {reason}; use those of "
            "Keras, or one worker"
        ) from None


def _as_json(part: Any, module: Any) -> Any:
    """A loss or metric for `keras.losses.get` or `keras.metrics.get`; Keras' functions by name."""
    if not callable(part):
        return part
    name = getattr(part, "__name__", None)
    return name if name and getattr(module, name, None) is part else module.serialize(part)


def _compiled(loss: Any, metrics: Any) -> Compiled:
    if _are_several(loss):
        _logger.warning("the model was compiled with several losses; cross-entropy is used")
        return Compiled()
    made = keras.losses.get(loss)
    if isinstance(made, keras.losses.Loss):
        made = copy.copy(made)
        made.reduction = None  # sample by sample
    return Compiled(
        made,
        tuple(map(_made_metric, _flat(metrics))),
    )


def _made_metric(metric: Any) -> Any:
    """Keras chooses what names such as "accuracy" mean by the shapes of the answers."""
    return keras.metrics.get(metric) if isinstance(metric, Mapping) else metric


def _are_several(loss: Any) -> bool:
    if isinstance(loss, Mapping):
        return "class_name" not in loss
    return isinstance(loss, Sequence) and not isinstance(loss, str)


def _flat(metrics: Any) -> list[Any]:
    """Keras nests the list of a model with one output."""
    listed = metrics if isinstance(metrics, (list, tuple)) else ()
    return [m for metric in listed for m in (metric if isinstance(metric, list) else [metric])]


def _checked(config: Mapping[str, Any], where: str) -> tuple[Any, list[Any]]:
    """The loss, made, and the metrics, by name or config, of a compile config.

    Raises what `checked_compiled` and Keras raise.
    """
    if _are_several(config.get("loss")):
        return config["loss"], []
    metrics = [checked_compiled(each, METRIC, where) for each in _flat(config.get("metrics"))]
    return keras.losses.get(checked_compiled(config.get("loss"), LOSS, where)), metrics
