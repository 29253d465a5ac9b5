"""`lrf profile`: measure the latencies of a model's layers and of their chains on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrf_core.commands.flags import JsonOption, by_spec
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import ModelError
from lrf_core.spec import Spec

if TYPE_CHECKING:
    import keras

    from lrf_core.models.structure import SampleShape

FileOption = Annotated[
    Path, typer.Option("--out", help="Table to write, or to go on with where there is one.")
]
PointsOption = Annotated[
    int, typer.Option("--points", min=2, help="Ranks measured in each mode, at most.")
]
RepeatsOption = Annotated[
    int,
    typer.Option("--repeats", min=5, help="Timed runs of each, at most; of slow ones fewer."),
]


@by_spec("model", "weights", "data", "explore.methods", needs=("model",))
def profile(
    spec: Spec,
    out: FileOption = Path("latency.json"),
    points: PointsOption = 8,
    repeats: RepeatsOption = 30,
    as_json: JsonOption = False,
) -> None:
    """Measure each layer, and the chains that may replace it, in LiteRT on one thread.

    Run it on the machine that serves the model, and give the table to lrf explore or lrf compress
    by --set explore.latency=latency.json. Layers of equal geometry are measured once, chains at a
    few ranks of each form. --data is needed only for a model that leaves its input sizes open.

    Run it again after an interruption, or with other models or methods, and what is in the table
    already is not measured again.

    \b
    Examples:
      lrf profile model.keras --out latency.json
      lrf profile model.keras --data images/ --methods tucker,svd --points 4 --out latency.json
      lrf explore model.keras --data images/ --set explore.latency=latency.json

    \b
    Ends with 0 when all is measured, 2 for bad input, 1 for anything else.
    """
    import_tensorflow_quietly()
    from lrf_core import methods
    from lrf_core.latency import profile as profile_layers
    from lrf_core.models.inventory import take_inventory
    from lrf_core.models.load import load_model
    from lrf_core.report.tables import latency_table
    from lrf_core.run.summary import print_result

    names = methods.chosen(spec.explore.methods)
    network = load_model(spec.model, spec.weights)
    inventory = take_inventory(network, names, _shape(network, spec))
    records = [record for record in inventory if record.methods]
    table = profile_layers(
        network,
        records,
        method_names=names,
        per_mode=spec.explore.ranks_per_mode,
        points=points,
        repeats=repeats,
        file=out,
    )
    if as_json:
        typer.echo(json.dumps(table.model_dump(mode="json"), indent=2))
    else:
        print_result(latency_table(table, {record.name for record in records}), out)


def _shape(model: keras.Model, spec: Spec) -> SampleShape | None:
    """The shape of one sample, if there is data. Raises ModelError if it is needed and missing.

    Without it, sizes that a model leaves open would be made up, and so would the latencies.
    """
    import numpy as np

    from lrf_core.data import open_data
    from lrf_core.models.structure import sample_shape

    if spec.data:
        return sample_shape(open_data(spec.data, model, spec.seed).test.read(np.array([0])))
    if any(None in tensor.shape[1:] for tensor in model.inputs):
        raise ModelError(
            f"model '{model.name}' leaves sizes of its input open, on which latencies depend; "
            "give --data with samples of the size that it will serve"
        )
    return None
