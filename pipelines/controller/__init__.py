"""Compression that starts by itself: a model that asks for it is compressed, judged and offered."""
