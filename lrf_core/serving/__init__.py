"""Serving of releases by KServe: which may be served, how they get there, and back again."""
