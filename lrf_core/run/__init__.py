"""A run by a spec: its stages, the folder of its results, and what is printed at the end."""
