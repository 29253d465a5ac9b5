"""Every architecture of keras.applications: inventory, splice, same answers, predicted costs.

At full rank chains hold the layers' kernels exactly. At a quarter of it the kernels of the original
are set to what the chains amount to, so that the answers must stay there, too.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest

from lrf_core import methods
from lrf_core.artifacts import Cost
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import geometry_of, take_inventory
from lrf_core.models.splice import largest_difference, splice
from lrf_core.models.trace import walk

METHODS = ("tucker", "svd")
# The smallest images that the trunks take; 32 elsewhere.
SIZES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
QUICK = ("ConvNeXtTiny", "EfficientNetB0", "MobileNetV3Small", "ResNet50", "VGG16")
Ranks = dict[str, tuple[int, ...]]
Chain = list[keras.Layer]
NAMES = sorted(name for name in dir(keras.applications) if name[0].isupper())


@pytest.fixture(autouse=True)
def _memory_of_one_model() -> Iterator[None]:
    yield
    gc.collect()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in NAMES
    ],
)
def test_every_eligible_layer_can_be_factorized(name: str) -> None:
    size = SIZES.get(name, 32)
    model = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    records = take_inventory(model, METHODS)
    assert total(record.cost for record in records).params == model.count_params()
    layouts = {r.name: forms_of(r)[0] for r in records if r.methods}
    assert len(layouts) > 5
    stays = total(record.cost for record in records if not record.methods)
    samples = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype(np.float32)
    layers = dict(walk(model))

    def spliced_at(ranks: Ranks, weigh: Callable[[keras.Layer, Chain], None]) -> keras.Model:
        chains = {path: layout.chain(layers[path], ranks[path]) for path, layout in layouts.items()}
        spliced = splice(model, chains)
        predicted = total(layout.cost(ranks[path]) for path, layout in layouts.items())
        after = model_cost(spliced)
        assert after == stays + predicted
        assert after.params == spliced.count_params()
        for path, chain in chains.items():
            weigh(layers[path], chain)
            if layers[path].use_bias:
                chain[-1].bias.assign(layers[path].bias)
        return spliced

    full = spliced_at({path: layout.full_ranks for path, layout in layouts.items()}, exactly)
    assert largest_difference(model, full, samples) < 1e-3
    del full
    quarter = {
        path: tuple(max(1, rank // 4) for rank in layout.full_ranks)
        for path, layout in layouts.items()
    }
    low = spliced_at(quarter, the_other_way_round)
    assert largest_difference(model, low, samples) < 1e-3


def exactly(layer: keras.Layer, chain: Chain) -> None:
    """The layer's kernel in a chain of full rank: itself, and the identity if there are two."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if len(chain) == 1:
        chain[0].kernel.assign(kernel)
        return
    first, second = chain
    inputs, outputs = kernel.shape[-2:]
    wide = inputs < outputs
    identity = np.eye(min(inputs, outputs), dtype=np.float32)
    for link, is_kernel in ((first, not wide), (second, wide)):
        link.kernel.assign((kernel if is_kernel else identity).reshape(link.kernel.shape))


def the_other_way_round(layer: keras.Layer, chain: Chain) -> None:
    """The product of a chain's kernels in the layer."""
    layer.kernel.assign(functools.reduce(np.matmul, kernels_of(chain)))


def total(costs) -> Cost:
    return functools.reduce(Cost.__add__, costs, Cost(params=0, macs=0))


def forms_of(record):
    return methods.get(record.methods[0]).layouts(geometry_of(record))


def kernels_of(chain) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(link.kernel) for link in chain]
