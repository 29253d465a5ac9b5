"""Read a model file in a process of its own that may do nothing else: the second wall."""
