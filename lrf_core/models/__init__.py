"""Keras models: read safely, take inventory, count cost, rebuild with layers replaced."""

from lrf_core.models.channels_first import convolve_in_channels_last

convolve_in_channels_last()
