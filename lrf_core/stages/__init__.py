"""The six stages, one function each: typed inputs in, typed outputs out."""

from lrf_core.stages.analyze import analyze
from lrf_core.stages.decompose import decompose
from lrf_core.stages.explore import explore
from lrf_core.stages.finetune import finetune
from lrf_core.stages.override import override_asked, override_of
from lrf_core.stages.publish import publish
from lrf_core.stages.validate import smallest_passing, validate, validate_all

__all__ = [
    "analyze",
    "decompose",
    "explore",
    "finetune",
    "override_asked",
    "override_of",
    "publish",
    "smallest_passing",
    "validate",
    "validate_all",
]
