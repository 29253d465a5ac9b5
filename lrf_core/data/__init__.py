"""Where samples come from: `.npz` files, image folders, or a function that returns datasets."""

from lrf_core.data.source import open_data
from lrf_core.data.split import Data, Split

__all__ = ["Data", "Split", "open_data"]
