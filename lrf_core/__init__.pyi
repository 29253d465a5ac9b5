from .artifacts import (
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Override,
    Plan,
    Promotion,
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
from .run.in_memory import Compression, compress
from .run.workflow import RunResult, run_spec
from .spec import (
    DecomposeSpec,
    ExploreSpec,
    FinetuneSpec,
    GateSpec,
    Goal,
    PromoteSpec,
    PublishSpec,
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
    promote,
    publish,
    smallest_passing,
    validate,
    validate_all,
)

# In the order of use.
__all__ = [  # noqa: RUF022
    "load_model",
    "open_data",
    "compress",
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
    "promote",
    "save_model",
    "export_model",
    "open_exported",
    "closeness",
    "load_spec",
    "run_spec",
    "Spec",
    "Goal",
    "ExploreSpec",
    "DecomposeSpec",
    "FinetuneSpec",
    "GateSpec",
    "PublishSpec",
    "PromoteSpec",
    "Compression",
    "RunResult",
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
    "Promotion",
    "Export",
    "Closeness",
    "LrfError",
]
