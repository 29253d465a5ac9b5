"""The inventory of a model, and its measures."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from lrf_core.artifacts.record import Artifact, Record

# Numbers that arithmetic on them, and a column of a table, can hold.
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Cost(Record):
    """Parameters and multiply-adds (one sample), of a layer or a whole model."""

    params: Count
    macs: Count

    def __add__(self, other: Cost) -> Cost:
        return Cost(params=self.params + other.params, macs=self.macs + other.macs)


class Call(Record):
    """Sizes of one call of a layer, without batch and channels; none for a plain dense layer.

    Attributes:
        unstrided: what `outputs` would be at strides of 1; empty if it is that.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    unstrided: tuple[int, ...] = ()


class LayerRecord(Record):
    """One layer with weights.

    Attributes:
        name: path through nested models, parts joined by "/".
        kind: the Keras class, e.g. "Conv2D".
        kernel_shape: as Keras stores it; empty if there is no single kernel.
        calls: one entry for every place where the layer is used.
        strides: of a convolution, one for each spatial axis.
        fixed_sizes: whether the model takes samples of one size only.
        bias: whether the layer adds a bias to its kernel's products.
        share: of the model's parameters.
        itemsize: bytes of one parameter as it is stored.
        methods: the factorizations that apply; empty when not eligible.
        reason: why the layer stays as it is; empty when eligible.
    """

    name: str
    kind: str
    kernel_shape: tuple[int, ...]
    calls: tuple[Call, ...]
    strides: tuple[int, ...] = ()
    fixed_sizes: bool = True
    bias: bool = False
    cost: Cost
    share: float
    itemsize: int = 4
    methods: tuple[str, ...] = ()
    reason: str = ""


class ModelMeasures(Record):
    """What is measured of a model, before and after.

    Attributes:
        accuracy: percent of samples; None when the data has no labels.
        weight_bytes: bytes of all weights as stored.
        keras_latency_ms: median for one sample in Keras; None if not measured.
        litert_latency_ms: median for one sample in LiteRT, one thread; None if not measured.
        keras_latency_p95_ms, litert_latency_p95_ms: 95th percentiles of the same runs.
    """

    cost: Cost
    weight_bytes: int
    accuracy: float | None = None
    samples: int = 0
    keras_latency_ms: float | None = None
    litert_latency_ms: float | None = None
    keras_latency_p95_ms: float | None = None
    litert_latency_p95_ms: float | None = None


class Analysis(Artifact):
    """The inventory of a model, and its measures before compression."""

    file_name: ClassVar[str] = "analysis.json"
    model_name: str
    model_digest: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    layers: tuple[LayerRecord, ...]
    baseline: ModelMeasures
    shards: tuple[tuple[str, ...], ...]

    def eligible(self) -> tuple[LayerRecord, ...]:
        return tuple(layer for layer in self.layers if layer.methods)
