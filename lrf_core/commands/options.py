"""Flags that several commands share, and what they mean in a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lrf_core.errors import SpecError

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="A .keras or .h5 file, a .json config, or s3://bucket/key (or set in --spec)."
    ),
]
WeightsOption = Annotated[
    str | None, typer.Option(help="Weights file, for a model given as a .json config.")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="An .npz file, a folder of class folders of images or an archive of one, "
        "s3://bucket/key, or module:function."
    ),
]
SpecOption = Annotated[Path | None, typer.Option(help="YAML spec; flags override it.")]
OutOption = Annotated[
    str | None, typer.Option(help="Folder for the artifacts of every stage.  [default: out]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random.  [default: 0]")]
MethodsOption = Annotated[
    str | None, typer.Option(help="Comma-separated, e.g. tucker,svd.  [default: all]")
]
LatencyOption = Annotated[
    str | None,
    typer.Option(help='A table that `lrf profile` wrote, or "measure" to measure here first.'),
]
SamplesOption = Annotated[int | None, typer.Option(help="Calibration samples.  [default: 512]")]
CacheOption = Annotated[
    str | None,
    typer.Option(
        help="Where scores of layers are kept: a folder or s3://bucket/prefix.  "
        "[default: OUT/.cache]"
    ),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Score every layer again, and keep nothing.")
]
ShardOption = Annotated[
    str | None, typer.Option(help="Explore one part of the layers only, e.g. 1/4 ... 4/4.")
]
SpacesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--space",
        help="Design space to read; once for each shard.  "
        "[default: OUT/design_space.parquet, or the shards in OUT]",
    ),
]
DropOption = Annotated[
    float | None, typer.Option(help="Accuracy that may be lost, in points.  [default: 1.0]")
]
ParamsOption = Annotated[
    float | None, typer.Option(help="Share of the parameters to remove, e.g. 0.5.")
]
MacsOption = Annotated[
    float | None, typer.Option(help="Share of the multiply-adds to remove, e.g. 0.4.")
]
BytesOption = Annotated[
    float | None, typer.Option(help="Share of the weight bytes to remove, e.g. 0.5.")
]
LatencyReductionOption = Annotated[
    float | None, typer.Option(help="Share of the explored layers' latency to remove, e.g. 0.3.")
]
MaxParamsOption = Annotated[int | None, typer.Option(help="Parameters of the whole model.")]
MaxMacsOption = Annotated[int | None, typer.Option(help="Multiply-adds of the whole model.")]
MaxBytesOption = Annotated[int | None, typer.Option(help="Weight bytes of the whole model.")]
MaxLatencyOption = Annotated[
    float | None, typer.Option(help="Latency of the explored layers, ms a sample.")
]
MaxLossOption = Annotated[
    float | None, typer.Option(help="Summed predicted loss (nats), before fine-tuning.")
]
MinimizeOption = Annotated[
    str | None,
    typer.Option(
        help="error or sensitivity (the predicted loss); params, macs, bytes or latency where the "
        "loss is limited.  [default: error if fine-tuning follows, else sensitivity]"
    ),
]
SimilarityOption = Annotated[
    float | None, typer.Option(help="Least similarity of every feature map, e.g. 0.95.")
]
PolicyOption = Annotated[str | None, typer.Option(help="knapsack, threshold or vbmf.")]
PlansOption = Annotated[
    int | None,
    typer.Option(
        help="Plans to build and fine-tune, of which the smallest that passes is published.  "
        "[default: 3 where an accuracy drop decides, else 1]"
    ),
]
EpochsOption = Annotated[
    int | None, typer.Option(help="Epochs of fine-tuning; 0 skips it.  [default: 3]")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Processes that fine-tune together (needs lrf[jax]).  [default: 1]"),
]
ToOption = Annotated[
    str | None, typer.Option(help="file:///dir or s3://bucket/prefix.  [default: OUT/release]")
]
NameOption = Annotated[str | None, typer.Option(help="Name of the release.")]
OverrideByOption = Annotated[
    str | None, typer.Option(help="Publish although checks failed: who decides.")
]
OverrideReasonOption = Annotated[str | None, typer.Option(help="Why; kept in the release.")]
OverrideChecksOption = Annotated[
    str | None,
    typer.Option(help="Comma-separated checks that may fail.  [default: all that did]"),
]


def split_names(names: str | None) -> list[str] | None:
    """`tucker,svd` as a list."""
    return None if names is None else [name.strip() for name in names.split(",")]


def cache_setting(cache: str | None, no_cache: bool) -> str | Literal[False] | None:
    """`explore.cache` of a spec; None overrides nothing. Raises SpecError when both are given."""
    if cache is not None and no_cache:
        raise SpecError("--cache and --no-cache exclude each other; give one of them")
    return False if no_cache else cache


def goal_settings(
    max_accuracy_drop: float | None,
    params_reduction: float | None,
    macs_reduction: float | None,
    similarity: float | None,
    **limits: float | None,
) -> dict[str, Any]:
    """The `goal` of a spec; what was not given is None and overrides nothing.

    Args:
        limits: the other settings of the goal, by their names.
    """
    return {
        **limits,
        "max_accuracy_drop": max_accuracy_drop,
        "params_reduction": params_reduction,
        "macs_reduction": macs_reduction,
        "similarity": similarity,
    }
