"""The stages, one function each: typed inputs in, typed outputs out.

What else there is here is for several plans: `plan_numbers`, `prepare`, `validate_all` and so on.
"""

from lrf_core.stages.analyze import analyze
from lrf_core.stages.decompose import Prepared, decompose, plan_numbers, prepare
from lrf_core.stages.explore import explore
from lrf_core.stages.finetune import finetune
from lrf_core.stages.override import override_of, requested_override
from lrf_core.stages.promote import promote
from lrf_core.stages.publish import publish
from lrf_core.stages.selection import by_number, select_candidate
from lrf_core.stages.validate import smallest_passing, validate, validate_all

__all__ = [
    "Prepared",
    "analyze",
    "by_number",
    "decompose",
    "explore",
    "finetune",
    "override_of",
    "plan_numbers",
    "prepare",
    "promote",
    "publish",
    "requested_override",
    "select_candidate",
    "smallest_passing",
    "validate",
    "validate_all",
]
