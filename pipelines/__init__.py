"""The compression pipeline: its graph, and how it is run here or on a cluster."""
