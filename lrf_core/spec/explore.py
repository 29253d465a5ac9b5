"""How the design space is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from lrf_core import similarity
from lrf_core.errors import SpecError
from lrf_core.named_function import PATTERN
from lrf_core.spec.section import Section


class ExploreSpec(Section):
    """How the design space is made."""

    methods: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Factorizations that compete for each layer, of tucker, cp, tensor_train, svd, "
        "qr, t3f and those registered. Default: all.",
    )
    layers: tuple[str, ...] = Field(("*",), description="Glob patterns of layers to consider.")
    exclude: tuple[str, ...] = Field((), description="Glob patterns of layers to leave alone.")
    samples: int = Field(512, ge=8, description="Calibration samples, from the training data.")
    batch_size: int | None = Field(
        None, ge=1, description="Calibration samples at once; default: as many as fit into memory."
    )
    memory_gib: float = Field(
        4.0,
        gt=0.0,
        description="Memory for the moments of layers explored together and the arithmetic on "
        "them; layers are explored in groups that fit, one pass over the samples each.",
    )
    similarity: str = Field(
        "nmse",
        description="How alike two feature maps are: nmse, cosine, cka, pearson, ssim (of 2-D "
        "maps).",
    )
    loss: str | None = Field(
        None,
        pattern=f"^{PATTERN}$",
        description="module:function, a loss of (outputs, uniform) whose gradient tells how much "
        "an error matters; default: the likelihood that the outputs stand for.",
    )
    factors: Literal["data", "weights"] = Field(
        "data",
        description="What factors are fitted to: the feature maps (data), or the weights alone, by "
        "tensorly and t3f, as the baseline of papers; these are not refitted.",
    )
    ranks_per_mode: int = Field(16, ge=2, le=256, description="Ranks offered per mode, at most.")
    shards: int = Field(2, ge=1, le=64, description="Parts explored side by side in a pipeline.")
    latency: str | None = Field(
        None,
        description='A latency table that `lrf profile` wrote, or "measure" to measure here first. '
        "Without it candidates have no latency.",
    )
    cache: str | Literal[False] | None = Field(
        None,
        description="Where scores are kept, so that no layer is scored twice: file:///dir, a path, "
        "s3://bucket/prefix, or false for nowhere. Default: .cache in the output, in the steps of "
        "a pipeline on a cluster nowhere.",
    )

    @property
    def memory_bytes(self) -> int:
        """`memory_gib` in bytes."""
        return int(self.memory_gib * 2**30)

    def decisive(self) -> dict[str, Any]:
        """What decides the design space: not where scores are kept, nor how work is shared out."""
        return self.model_dump(mode="json", exclude={"cache", "latency", "shards"})

    def scoring(self) -> dict[str, Any]:
        """What decides the scores of one layer by one method, given the calibration samples."""
        chosen = {"methods", "layers", "exclude", "samples"}
        return {name: value for name, value in self.decisive().items() if name not in chosen}

    @field_validator("similarity")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            return similarity.get(name).name
        except SpecError as error:
            raise ValueError(str(error)) from None
