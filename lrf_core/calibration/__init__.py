"""Feature maps on calibration samples: input rows, second moments, gradient moments."""

from lrf_core.calibration.collect import collect_moments

__all__ = ["collect_moments"]
