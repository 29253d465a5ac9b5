"""Feature maps on calibration samples: input rows, second moments, gradient moments."""

from lrf_core.calibration.collect import calibrated_groups, collect_moments
from lrf_core.calibration.samples import (
    calibration_samples,
    check_calibration_samples,
    samples_digest,
)
from lrf_core.calibration.stored import moments_of_all

__all__ = [
    "calibrated_groups",
    "calibration_samples",
    "check_calibration_samples",
    "collect_moments",
    "moments_of_all",
    "samples_digest",
]
