"""`lrf profile`: measure the latencies of a model's layers and of their chains on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrf_core.commands.options import (
    DataOption,
    JsonOption,
    MethodsOption,
    SeedOption,
    WeightsOption,
    split_names,
)
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import ModelError, SpecError
from lrf_core.spec import ExploreSpec

if TYPE_CHECKING:
    import keras

    from lrf_core.models.structure import SampleShape

ModelArgument = Annotated[
    str | None, typer.Argument(help="A .keras or .h5 file, or a .json config.")
]
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


def profile(
    model: ModelArgument = None,
    weights: WeightsOption = None,
    data: DataOption = None,
    methods: MethodsOption = None,
    out: FileOption = Path("latency.json"),
    points: PointsOption = 8,
    repeats: RepeatsOption = 30,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure each layer, and the chains that may replace it, in LiteRT on one thread.

    Run it where the model is to serve, and give the table to lrf explore or lrf compress by
    --latency. Layers of equal geometry are measured once, chains at a few ranks of each form.
    --data is needed only for a model that leaves its input sizes open.

    Run it again after an interruption, or with other models or methods, and what is in the table
    already is not measured again.

    \b
    Examples:
      lrf profile model.keras --out latency.json
      lrf profile model.keras --data images/ --methods tucker,svd --points 4 --out latency.json
      lrf explore model.keras --data images/ --latency latency.json

    \b
    Ends with 0 when all is measured, 2 for bad input, 1 for anything else.
    """
    if not model:
        raise SpecError("MODEL is missing; see lrf profile --help")
    settings = ExploreSpec()
    names = tuple(split_names(methods) or settings.methods)
    import_tensorflow_quietly()
    from lrf_core.latency import profile as profile_layers
    from lrf_core.models.inventory import take_inventory
    from lrf_core.models.load import load_model
    from lrf_core.report.tables import latency_table
    from lrf_core.run.summary import print_for_people

    network = load_model(model, weights)
    inventory = take_inventory(network, names, _shape(network, data, seed or 0))
    records = [record for record in inventory if record.methods]
    table = profile_layers(
        network,
        records,
        method_names=names,
        per_mode=settings.ranks_per_mode,
        points=points,
        repeats=repeats,
        file=out,
    )
    if as_json:
        typer.echo(json.dumps(table.model_dump(mode="json"), indent=2))
    else:
        print_for_people(latency_table(table, {record.name for record in records}), out)


def _shape(model: keras.Model, data: str | None, seed: int) -> SampleShape | None:
    """Of one sample, where there is data. Raises ModelError where it is needed and there is none.

    Without it, sizes that a model leaves open would be made up, and so would the latencies.
    """
    import numpy as np

    from lrf_core.data import open_data
    from lrf_core.models.structure import sample_shape

    if data is not None:
        return sample_shape(open_data(data, model, seed).test.read(np.array([0])))
    if any(None in tensor.shape[1:] for tensor in model.inputs):
        raise ModelError(
            f"model '{model.name}' leaves sizes of its input open, on which latencies depend; "
            "give --data with samples of the size that it will serve"
        )
    return None
