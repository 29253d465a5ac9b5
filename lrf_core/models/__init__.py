"""Keras models: read safely, take inventory, count cost, rebuild with layers replaced."""
