"""Every architecture of keras.applications: inventory, splice, same answers, predicted costs.

The kernels of the original are set to what low-rank chains amount to, so that one splice of low
rank shows both that the answers stay and that the closed-form costs are those Keras counts.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator

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
    forms = {r.name: forms_of(r)[0] for r in records if r.methods}
    assert len(forms) > 5
    ranks = {path: tuple(max(1, full // 4) for full in f.full_ranks) for path, f in forms.items()}
    layers = dict(walk(model))
    chains = {path: form.chain(layers[path], ranks[path]) for path, form in forms.items()}

    spliced = splice(model, chains)

    stays = total(record.cost for record in records if not record.methods)
    predicted = total(form.cost(ranks[path]) for path, form in forms.items())
    after = model_cost(spliced)
    assert after == stays + predicted
    assert after.params == spliced.count_params()
    for path, chain in chains.items():
        layers[path].kernel.assign(functools.reduce(np.matmul, kernels_of(chain)))
        if layers[path].use_bias:
            chain[-1].bias.assign(layers[path].bias)
    samples = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype(np.float32)
    assert largest_difference(model, spliced, samples) < 1e-3


def total(costs) -> Cost:
    return functools.reduce(Cost.__add__, costs, Cost(params=0, macs=0))


def forms_of(record):
    return methods.get(record.methods[0]).forms(geometry_of(record))


def kernels_of(chain) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(link.kernel) for link in chain]
