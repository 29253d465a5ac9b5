"""`lrf controller`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def controller(
    config: Annotated[Path, typer.Option(help="YAML file with the controller's settings.")],
    local: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Run the pipelines on this machine, each in a folder below DIR."
        ),
    ] = None,
) -> None:
    """Compress every model that a bucket or a model registry requests it for.

    Starts one pipeline run for each, and writes the outcome back. It may be killed at any moment
    and goes on where it was; runs go on without it. Serves /healthz, /readyz and /metrics.

    \b
    Examples:
      lrf controller --config /etc/lrf/controller.yaml
      lrf controller --config controller.yaml --local runs

    \b
    Ends with 0 after SIGTERM, 2 for settings that cannot be used.
    """
    from pipelines.controller.process import run
    from pipelines.controller.settings import load_settings, load_specs

    settings = load_settings(config)
    run(settings, load_specs(settings.specs), local)
