"""A SavedModel that writes a file when it is loaded, as an attacker would put beside a model."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow.python.ops import gen_resource_variable_ops
from tensorflow.python.trackable.resource import TrackableResource


class _Writing(TrackableResource):
    def __init__(self, mark: Path) -> None:
        super().__init__()
        self._mark = str(mark)

    def _create_resource(self) -> tf.Tensor:
        return gen_resource_variable_ops.var_handle_op(dtype=tf.float32, shape=[])

    def _initialize(self) -> None:
        tf.io.write_file(self._mark, "run")


def writing_saved_model(folder: Path, mark: Path) -> None:
    """Write a SavedModel whose initializer writes `mark`; `mark` does not exist afterwards."""
    module = tf.Module()
    module.resource = _Writing(mark)
    module.serve = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None, 4])])
    signature = module.serve.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
    mark.unlink(missing_ok=True)
