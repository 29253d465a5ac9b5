"""The likelihood that a model's outputs stand for, and labels drawn from it.

The gradient of the loss of a label drawn from the model's own answer has the Fisher information as
its second moment (Martens and Grosse 2015, arXiv 1503.05671). What an output means is told by its
activation and shape:

- softmax over the last axis, also at every position of a map: one class for each position;
- linear `(batch, classes)`, two or more classes: logits of one class;
- sigmoid: independent yes or no for each value;
- anything else (regression, boxes, embeddings, maps without softmax): a Gaussian around the answer
  with the variance that the answers have over the samples, so that outputs of any unit count alike.

The losses of several outputs are added. Labels are drawn by uniform numbers that are handed in, so
that they do not depend on the batches that samples come in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lrf_core.calibration.lazy_tensorflow import tf
from lrf_core.data import Split
from lrf_core.models.load import is_probability

_LEAST = 1e-7  # probability; keeps logarithms finite
_FEW, _MORE = 8, 128  # samples


@dataclass(frozen=True)
class Likelihood:
    """One output's negative log-likelihood of labels drawn from the answer itself.

    Attributes:
        kind: for people: "classes", "yes or no", "gaussian", or "none" without a gradient.
        of_float: answers `(batch, ...)` float32 and as many numbers between 0 and 1 to the loss;
            None for answers that are no float numbers.
    """

    kind: str
    of_float: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None

    def loss(self, answers: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """The loss summed over a batch of answers, a float32 scalar.

        Args:
            uniform: numbers between 0 and 1, both excluded, of the answers' shape.
        """
        if self.of_float is None:
            return tf.constant(0.0)
        return self.of_float(tf.cast(answers, tf.float32), uniform)


def likelihoods_of(model: keras.Model, samples: Split, batch_size: int = 64) -> list[Likelihood]:
    """One for each output, in the order in which Keras flattens structures.

    Args:
        samples: the first few tell probabilities from logits; the first 128, the scale of answers
            that are neither.
    """
    activations = [_activation_of(tensor) for tensor in model.outputs]
    few = _answers(model, _first(samples, _FEW), batch_size)
    found = [_likelihood(*pair) for pair in zip(few, activations, strict=True)]
    if any(one.kind == "gaussian" for one in found):
        answers = _answers(model, _first(samples, _MORE), batch_size)
        found = [_likelihood(*pair) for pair in zip(answers, activations, strict=True)]
    return found


def _first(samples: Split, count: int) -> Split:
    return samples.take(np.arange(min(count, samples.count)))


def _answers(model: keras.Model, samples: Split, batch_size: int) -> list[Any]:
    parts = []
    for batch, _ in samples.batches(batch_size):
        tensors = keras.tree.map_structure(tf.convert_to_tensor, batch)
        answers = keras.tree.flatten(model(tensors, training=False))
        parts.append([np.asarray(answer) for answer in answers])
    return [np.concatenate(of_one_output) for of_one_output in zip(*parts, strict=True)]


def _likelihood(answers: Any, activation: Any) -> Likelihood:
    if answers.dtype.kind in "biuUSO":
        return Likelihood("none")
    answers = answers.astype(np.float64)
    classes = answers.shape[-1] if answers.ndim > 1 else 1
    if classes > 1 and is_probability(answers):
        return Likelihood(
            "classes", lambda values, uniform: _class_loss(_logarithm(values), uniform)
        )
    if activation is keras.activations.sigmoid:
        return Likelihood("yes or no", _yes_or_no_loss)
    if classes > 1 and answers.ndim == 2:
        return Likelihood("classes", _class_loss)
    deviation = max(float(answers.std()), _LEAST)
    return Likelihood(
        "gaussian", lambda values, uniform: _gaussian_loss(values / deviation, uniform)
    )


def _activation_of(tensor: Any) -> Any:
    """Of the layer that gives an output of a graph; through nested models and renaming layers."""
    operation = tensor._keras_history.operation
    if isinstance(operation, keras.Model):
        return _activation_of(operation.outputs[tensor._keras_history.tensor_index])
    return getattr(operation, "activation", None)


def _logarithm(values: tf.Tensor) -> tf.Tensor:
    return tf.math.log(values + _LEAST)


def _class_loss(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    logs = tf.nn.log_softmax(logits)
    # Gumbel-max: the label is a draw from the model's own distribution.
    labels = tf.argmax(logs - tf.math.log(-tf.math.log(uniform)), axis=-1)
    return -tf.reduce_sum(tf.gather(logs, labels, batch_dims=len(logs.shape) - 1))


def _yes_or_no_loss(values: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    return -tf.reduce_sum(tf.where(uniform < values, _logarithm(values), _logarithm(1.0 - values)))


def _gaussian_loss(values: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """The gradient of a Gaussian's loss at its own mean is minus the noise that was drawn."""
    return tf.reduce_sum(values * tf.math.ndtri(uniform))
