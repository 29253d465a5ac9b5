"""The likelihood that a model's outputs stand for, and labels drawn from it.

The gradient of the loss of a label drawn from the model's own answer has the Fisher information as
its second moment (Martens and Grosse 2015, arXiv 1503.05671). What an output means is told by its
activation and shape:

- softmax over the last axis, also at every position of a map: one class for each position;
- linear `(batch, classes)`, two or more classes: logits of one class;
- sigmoid: independent yes or no for each value;
- anything else (regression, boxes, embeddings, maps without softmax): a Gaussian around the answer
  with the variance that the answers have over the samples, so that outputs of any unit count alike.

The losses of several outputs are added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lrf_core.models.load import is_probability
from lrf_core.structure import Samples

_LEAST = 1e-7  # probability; keeps logarithms finite


@dataclass(frozen=True)
class Likelihood:
    """One output's negative log-likelihood of labels drawn from the answer itself.

    Attributes:
        kind: for people: "classes", "yes or no", "gaussian", or "none" without a gradient.
        of_float: answers `(batch, ...)` float32 and a seed `(2,)` int32 to the loss; None for
            answers that are no float numbers.
    """

    kind: str
    of_float: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None

    def loss(self, answers: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The loss summed over a batch of answers, a float32 scalar; seed: `(2,)` int32."""
        if self.of_float is None:
            return tf.constant(0.0)
        return self.of_float(tf.cast(answers, tf.float32), seed)


def likelihoods_of(model: keras.Model, samples: Samples) -> list[Likelihood]:
    """One for each output, in the order in which Keras flattens structures.

    Args:
        samples: one batch; tells probabilities from logits, and the scale of other answers.
    """
    answers = keras.tree.flatten(model.predict_on_batch(samples))
    return [
        _likelihood(np.asarray(answer), _activation_of(tensor))
        for answer, tensor in zip(answers, model.outputs, strict=True)
    ]


def _likelihood(answers: Any, activation: Any) -> Likelihood:
    if answers.dtype.kind in "biuUSO":
        return Likelihood("none")
    answers = answers.astype(np.float64)
    classes = answers.shape[-1] if answers.ndim > 1 else 1
    if classes > 1 and is_probability(answers):
        return Likelihood("classes", lambda values, seed: _class_loss(_logarithm(values), seed))
    if activation is keras.activations.sigmoid:
        return Likelihood("yes or no", _yes_or_no_loss)
    if classes > 1 and answers.ndim == 2:
        return Likelihood("classes", _class_loss)
    deviation = max(float(answers.std()), _LEAST)
    return Likelihood("gaussian", lambda values, seed: _gaussian_loss(values / deviation, seed))


def _activation_of(tensor: Any) -> Any:
    """Of the layer that gives an output of a graph; through nested models and renaming layers."""
    operation = tensor._keras_history.operation
    if isinstance(operation, keras.Model):
        return _activation_of(operation.outputs[tensor._keras_history.tensor_index])
    return getattr(operation, "activation", None)


def _logarithm(values: tf.Tensor) -> tf.Tensor:
    return tf.math.log(values + _LEAST)


def _class_loss(logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    logs = tf.nn.log_softmax(logits)
    # Gumbel-max: the label is a draw from the model's own distribution.
    uniform = tf.random.stateless_uniform(tf.shape(logs), seed, _LEAST, 1.0)
    labels = tf.argmax(logs - tf.math.log(-tf.math.log(uniform)), axis=-1)
    return -tf.reduce_sum(tf.gather(logs, labels, batch_dims=len(logs.shape) - 1))


def _yes_or_no_loss(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    drawn = tf.random.stateless_uniform(tf.shape(values), seed) < values
    return -tf.reduce_sum(tf.where(drawn, _logarithm(values), _logarithm(1.0 - values)))


def _gaussian_loss(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The gradient of a Gaussian's loss at its own mean is minus the noise that was drawn."""
    return tf.reduce_sum(values * tf.random.stateless_normal(tf.shape(values), seed))
