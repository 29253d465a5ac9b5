"""Measurements of a whole model: outputs, accuracy, size, and latency in Keras and LiteRT."""
