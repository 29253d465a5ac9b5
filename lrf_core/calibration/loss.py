"""The loss whose gradient tells how much an error at a layer's output matters.

Without a word from the user it is the likelihood that the outputs stand for (`fisher`). For models
whose answers mean something else, `explore.loss` names a function, `module:function`:

    def loss(outputs, uniform):
        labels = keras.ops.cast(uniform < outputs, "float32")
        return keras.ops.sum(keras.losses.binary_crossentropy(labels, outputs), axis=-1)

`outputs` is what the model answers for a batch: a tensor, or a list or dict of them where it has
several outputs. `uniform` has the same structure and shapes: independent numbers between 0 and 1,
to draw labels from the answers with. (With labels drawn from the answers' own distribution the
second moment of the gradient is the Fisher information.) A function of `outputs` alone will do
where no labels are drawn. It returns one loss per sample, `(batch,)`, made by `keras.ops` or `tf`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from lrf_core.calibration.fisher import likelihoods_of
from lrf_core.calibration.lazy_tensorflow import tf
from lrf_core.data import Split
from lrf_core.errors import SpecError
from lrf_core.named_function import function_named, summarize_error, working_directory_importable

# Answers and numbers between 0 and 1, of the same structure, to the loss summed over the batch.
Loss = Callable[[Any, Any], Any]


def likelihood_loss(model: keras.Model, samples: Split, batch_size: int) -> Loss:
    """Of labels drawn from the model's answers, added over its outputs.

    Args:
        samples: see `likelihoods_of`.
    """
    likelihoods = likelihoods_of(model, samples, batch_size)

    def loss(answers: Any, uniform: Any) -> tf.Tensor:
        flat = zip(
            likelihoods, keras.tree.flatten(answers), keras.tree.flatten(uniform), strict=True
        )
        return tf.add_n([likelihood.loss(answer, draw) for likelihood, answer, draw in flat])

    return loss


def named_loss(source: str) -> Loss:
    """The user's function `module:function`; the working directory is searched for the module.

    Raises:
        SpecError: there is no such function, or, when the loss is called: it failed, or did not
            return one loss per sample.
    """
    where = f"explore.loss {source}"
    with working_directory_importable():
        function = function_named(source, SpecError)
    takes_uniform = len(_required(function)) > 1

    def loss(answers: Any, uniform: Any) -> tf.Tensor:
        try:
            with working_directory_importable():
                losses = function(answers, uniform) if takes_uniform else function(answers)
            losses = tf.convert_to_tensor(losses)
        except Exception as error:
            raise SpecError(f"{where} failed: {summarize_error(error)}") from error
        if losses.shape.rank != 1 or not losses.dtype.is_floating:
            raise SpecError(
                f"{where} returned {losses.dtype.name} of shape {losses.shape}; it must return "
                "one loss per sample, floats of shape (batch,)"
            )
        return tf.reduce_sum(tf.cast(losses, tf.float32))

    return loss


def _required(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
