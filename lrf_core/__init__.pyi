from .artifacts import (
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Override,
    Plan,
    Release,
    Verdict,
    Verdicts,
)
from .data import Data, Split, open_data
from .errors import LrfError
from .exploration.shards import Shard
from .export import Closeness, Export, closeness, export_model, open_exported
from .latency import LatencyTable, profile
from .models.load import load_model, save_model
from .spec import (
    DecomposeSpec,
    ExploreSpec,
    FinetuneSpec,
    GateSpec,
    Goal,
    Spec,
    load_spec,
)
from .stages import (
    analyze,
    decompose,
    explore,
    finetune,
    override_of,
    plan_numbers,
    publish,
    smallest_passing,
    validate,
    validate_all,
)
from .workflow import compress

# In the order of use.
__all__ = [  # noqa: RUF022
    "load_model",
    "open_data",
    "analyze",
    "profile",
    "explore",
    "plan_numbers",
    "decompose",
    "finetune",
    "validate",
    "validate_all",
    "smallest_passing",
    "override_of",
    "publish",
    "save_model",
    "export_model",
    "open_exported",
    "closeness",
    "compress",
    "load_spec",
    "Spec",
    "Goal",
    "ExploreSpec",
    "DecomposeSpec",
    "FinetuneSpec",
    "GateSpec",
    "Data",
    "Split",
    "Analysis",
    "Shard",
    "LatencyTable",
    "DesignSpace",
    "Plan",
    "FinetuneRecord",
    "Verdict",
    "Override",
    "Verdicts",
    "Release",
    "Export",
    "Closeness",
    "LrfError",
]
