"""What a user may ask for: one pydantic model = one YAML file = the flags of the command line."""

from lrf_core.spec.cluster import ClusterSpec
from lrf_core.spec.explore import ExploreSpec
from lrf_core.spec.finetune import FinetuneSpec, TrainJobSpec
from lrf_core.spec.gate import GateSpec
from lrf_core.spec.goal import DecomposeSpec, Goal, Minimized
from lrf_core.spec.promote import PrometheusSpec, PromoteSpec
from lrf_core.spec.publish import OverrideSpec, PublishSpec
from lrf_core.spec.whole import Spec, load_spec, make_spec, parse_spec, read_spec

__all__ = [
    "ClusterSpec",
    "DecomposeSpec",
    "ExploreSpec",
    "FinetuneSpec",
    "GateSpec",
    "Goal",
    "Minimized",
    "OverrideSpec",
    "PrometheusSpec",
    "PromoteSpec",
    "PublishSpec",
    "Spec",
    "TrainJobSpec",
    "load_spec",
    "make_spec",
    "parse_spec",
    "read_spec",
]
