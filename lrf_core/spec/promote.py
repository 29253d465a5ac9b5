"""Which service is to serve a release, and how carefully it gets there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lrf_core.spec.section import Duration, Section


class PrometheusSpec(Section):
    """A PromQL query that has to stay within a limit while traffic moves."""

    url: str = Field(
        pattern=r"^https?://[^@?#]+$", description="Of Prometheus, without credentials."
    )
    query: str = Field(
        min_length=1,
        description="PromQL. $namespace, $service and $revision (of the new one) are filled in.",
    )
    max: float | None = Field(None, description="No value may be above it.")
    min: float | None = Field(None, description="No value may be below it.")
    no_data: Literal["fail", "pass"] = Field(
        "fail", description="What an answer without values means, at the end of each soak."
    )

    @model_validator(mode="after")
    def _limited(self) -> PrometheusSpec:
        if self.max is None and self.min is None:
            raise ValueError("the query needs a limit; set max or min")
        return self


class PromoteSpec(Section):
    """How `lrf promote` brings a release to a KServe InferenceService."""

    service: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="The InferenceService: namespace/name.",
    )
    canary: tuple[Annotated[int, Field(ge=1, le=100)], ...] | None = Field(
        None,
        description="Percent of the traffic, step by step, up to 100; default: 10, 50, 100, and in "
        "a raw deployment, which has no canaries, 100.",
    )
    protocol: Literal["v1", "v2"] | None = Field(
        None, description="Inference protocol; default: the service's own, else v1."
    )
    runtime: str | None = Field(None, description="A (Cluster)ServingRuntime by its name.")
    wait: Duration = Field(600.0, gt=0.0, description="For the service to be ready, each time.")
    soak: Duration | None = Field(
        None,
        ge=0.0,
        description="How long each share of the traffic is watched; default: 5m with prometheus.",
    )
    interval: Duration = Field(15.0, gt=0.0, description="Between two queries of Prometheus.")
    poll: Duration = Field(2.0, gt=0.0, description="Between two looks at the service.")
    settle: Duration = Field(
        60.0,
        ge=0.0,
        description="How long a service that says it is ready may still not answer, or with the "
        "old model, while routes and pods change.",
    )
    prometheus: PrometheusSpec | None = None
    url: str | None = Field(
        None,
        pattern=r"^https?://[^@?#]+$",
        description="Of the ingress gateway, where the service's own host name does not resolve.",
    )
    model_name: str | None = Field(
        None, description="What the server calls the model; default: the service's name."
    )
    tolerance: float = Field(
        1e-3, gt=0.0, lt=1.0, description="Between two answers, as a share of the largest."
    )
    public_key: str | None = Field(
        None, description="PEM file; the release must be signed by its private key."
    )
    allow_override: bool = Field(
        False, description="Promote also what a person published although checks failed."
    )
    registries: tuple[Annotated[str, Field(pattern="^[^@]+$")], ...] = Field(
        (),
        description="Model registries in which champion and previous are set as well; default: "
        "those of publish.",
    )

    @model_validator(mode="after")
    def _rising(self) -> PromoteSpec:
        steps = self.canary
        if steps is not None and (
            not steps or steps[-1] != 100 or list(steps) != sorted(set(steps))
        ):
            raise ValueError("canary steps must rise and end at 100, e.g. 10,50,100")
        return self

    def effective_soak(self) -> float:
        """Seconds that each share of the traffic is watched."""
        if self.soak is not None:
            return self.soak
        return 300.0 if self.prometheus else 0.0
