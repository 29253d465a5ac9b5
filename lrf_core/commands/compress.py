"""`lrf compress`: a whole run."""

from __future__ import annotations

import typer

from lrf_core.commands.flags import JsonOption, by_spec
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import EXIT_GATE_REFUSED
from lrf_core.spec import Spec


@by_spec(
    "model",
    "weights",
    "data",
    "out",
    "goal.max_accuracy_drop",
    "goal.params_reduction",
    "goal.macs_reduction",
    "decompose.plans",
    "finetune.epochs",
    "explore.cache",
    "publish.to",
    "publish.name",
)
def compress(spec: Spec, as_json: JsonOption = False) -> None:
    """Analyze, explore, decompose, finetune, validate and publish a model.

    With several plans (--plans), each is fine-tuned once, in OUT/plans/0 and so on. The smallest
    candidate that passes the gate is copied to OUT and published.

    After an interruption, run the same command again: finished stages are loaded, and layers that
    were scored are not scored again.

    \b
    Examples:
      lrf compress model.keras --data images/ --max-accuracy-drop 1.0 --out out
      lrf compress model.keras --data digits.npz --params-reduction 0.5 --epochs 0
      lrf compress model.keras --data images/ --set goal.max_weight_bytes=200000
      lrf compress --spec spec.yaml --to s3://models/vision

    \b
    Exit code: 0 if the model passed and is published, 3 if it failed the gate, 2 for bad input,
    1 for any other failure.
    """
    import_tensorflow_quietly()
    from lrf_core.commands.output import print_json
    from lrf_core.run.summary import print_run, run_as_json
    from lrf_core.run.workflow import run_spec

    result = run_spec(spec)
    if as_json:
        print_json(run_as_json(result))
    else:
        print_run(result)
    if result.release is None:
        raise typer.Exit(EXIT_GATE_REFUSED)
