"""What passes from stage to stage. Each artifact is plain data and one file a user can open."""

from lrf_core.artifacts.analysis import Analysis, Call, Cost, LayerRecord, ModelMeasures
from lrf_core.artifacts.design_space import Candidate, DesignSpace
from lrf_core.artifacts.plan import Choice, DropCalibration, Plan, TriedPlan
from lrf_core.artifacts.promotion import Promotion, PromotionStep
from lrf_core.artifacts.record import (
    LINEAGE_FILE,
    MODEL_FILE,
    Artifact,
    Lineage,
    Record,
    digest_of,
    versions,
)
from lrf_core.artifacts.release import Override, Release, ReleaseFile, ReleaseSummary
from lrf_core.artifacts.training import EpochRecord, FinetuneRecord
from lrf_core.artifacts.verdict import (
    Check,
    ClassChange,
    Confusion,
    Evidence,
    ExportedAnswers,
    MetricChange,
    PlanOutcome,
    Verdict,
    Verdicts,
)

__all__ = [
    "LINEAGE_FILE",
    "MODEL_FILE",
    "Analysis",
    "Artifact",
    "Call",
    "Candidate",
    "Check",
    "Choice",
    "ClassChange",
    "Confusion",
    "Cost",
    "DesignSpace",
    "DropCalibration",
    "EpochRecord",
    "Evidence",
    "ExportedAnswers",
    "FinetuneRecord",
    "LayerRecord",
    "Lineage",
    "MetricChange",
    "ModelMeasures",
    "Override",
    "Plan",
    "PlanOutcome",
    "Promotion",
    "PromotionStep",
    "Record",
    "Release",
    "ReleaseFile",
    "ReleaseSummary",
    "TriedPlan",
    "Verdict",
    "Verdicts",
    "digest_of",
    "versions",
]
