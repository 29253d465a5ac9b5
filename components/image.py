"""The container image that every component runs in."""

from __future__ import annotations

import os

# Read when a pipeline is compiled, so that a registry of one's own can be named.
IMAGE = os.environ.get("LRF_IMAGE", "lrf:0.1.0")
