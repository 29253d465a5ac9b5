"""Keras models: read safely, take inventory, count cost, rebuild with layers replaced."""

from lrf_core.models.windows import run_windows_everywhere

run_windows_everywhere()
