"""Turn a Keras model into a file that a runtime serves, run that file, and compare the answers.

LiteRT flatbuffers (float32, float16, dynamic range, int8), ONNX and SavedModels. In each, inputs go
by the names of the model's inputs; outputs go by the keys of the dict that the model answers with,
or else by `output_0`, `output_1`, ... in the model's order.
"""

from lrf_core.export.compare import Closeness, answering_like, closeness
from lrf_core.export.formats import FORMATS, Export, export_model, open_exported
from lrf_core.export.interface import random_samples
from lrf_core.export.litert import (
    LitertModel,
    to_litert,
    to_litert_dynamic,
    to_litert_float16,
    to_litert_int8,
)
from lrf_core.export.onnx import OnnxModel, to_onnx
from lrf_core.export.saved_model import SavedModel, to_saved_model

__all__ = [
    "FORMATS",
    "Closeness",
    "Export",
    "LitertModel",
    "OnnxModel",
    "SavedModel",
    "answering_like",
    "closeness",
    "export_model",
    "open_exported",
    "random_samples",
    "to_litert",
    "to_litert_dynamic",
    "to_litert_float16",
    "to_litert_int8",
    "to_onnx",
    "to_saved_model",
]
