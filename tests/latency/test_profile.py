"""Layers and chains measured in LiteRT, and the table of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import keras
import pytest
from tiny import Trained, tiny_data

from lrf_core import methods
from lrf_core.artifacts import Candidate, DesignSpace, LayerRecord
from lrf_core.errors import ArtifactError
from lrf_core.exploration.merge import merged
from lrf_core.exploration.shards import Shard
from lrf_core.latency import (
    LatencyTable,
    measured_first,
    profile,
    timed_geometries,
    with_latency,
)
from lrf_core.latency.table import is_full
from lrf_core.methods import Layout
from lrf_core.methods.base import Ranks
from lrf_core.models.inventory import geometry_of, take_inventory
from lrf_core.models.trace import walk
from lrf_core.spec import ExploreSpec
from lrf_core.stages import analyze, explore

layers = keras.layers
FEW = {"per_mode": 4, "points": 2, "repeats": 5}


def eligible(model: keras.Model, names: Sequence[str] = methods.names()) -> list[LayerRecord]:
    return [record for record in take_inventory(model, tuple(names)) if record.methods]


def small_cnn() -> keras.Model:
    inputs = keras.Input((8, 8, 8))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(6, name="answer")(layers.Flatten()(x)), name="small")


def candidate(record: LayerRecord, layout: Layout, ranks: Ranks) -> Candidate:
    return Candidate(
        layer=record.name,
        method=layout.method,
        form=layout.name,
        ranks=ranks,
        cost=layout.cost(ranks),
        error=0.1,
        similarity=0.9,
        sensitivity=0.1,
    )


def all_candidates(records: Sequence[LayerRecord], per_mode: int) -> list[Candidate]:
    return [
        candidate(record, layout, ranks)
        for record in records
        for name in record.methods
        for layout in methods.get(name).layouts(geometry_of(record))
        for ranks in layout.candidate_ranks(per_mode)
        if layout.cost(ranks).params < record.cost.params
    ]


def joined(model: keras.Model, table: LatencyTable, names: Sequence[str]) -> list[Candidate]:
    records = eligible(model, names)
    geometries = timed_geometries(records, dict(walk(model)))
    return with_latency(all_candidates(records, 4), geometries, table)


def test_every_layer_and_candidate_of_a_small_model_gets_a_latency(tmp_path: Path) -> None:
    model, names = small_cnn(), methods.names()
    file = tmp_path / "latency.json"
    table = profile(model, eligible(model), method_names=names, **FEW, file=file)
    assert LatencyTable.load(file) == table
    first, answer = table.geometries
    assert first.layers == ("first", "second")  # of equal geometry: measured once
    assert answer.layers == ("answer",)
    found = joined(model, table, names)
    assert {each.method for each in found} == set(names)
    assert all(each.latency_ms is not None and each.latency_ms > 0 for each in found)
    by_name = {(c.layer, c.technique, c.ranks): c.latency_ms for c in found}
    for (layer, technique, ranks), latency in by_name.items():
        if layer == "first":
            assert by_name["second", technique, ranks] == latency


def test_larger_layers_take_longer() -> None:
    """What is measured is the layer at its own size, not a token of it."""
    own = []
    for size in (8, 64):
        inputs = keras.Input((size, size, 32))
        model = keras.Model(inputs, layers.Conv2D(32, 3, padding="same")(inputs))
        table = profile(model, eligible(model, ["svd", "cp"]), method_names=["cp"], **FEW)
        (entry,) = table.geometries
        assert entry.own is not None
        own.append(entry.own.median_ms)
        (merged_form, _) = entry.forms
        few, many = (box.points[i].median_ms for box in merged_form.boxes for i in (0, -1))
        assert few < many
    assert own[1] > 8 * own[0]


def test_svd_and_qr_have_the_same_chains_and_share_measurements() -> None:
    inputs = keras.Input((64,))
    model = keras.Model(inputs, layers.Dense(64)(inputs))
    table = profile(model, eligible(model, ["svd", "qr"]), method_names=["svd", "qr"], **FEW)
    svd, qr = table.geometries[0].forms
    assert svd.method == "svd"
    assert qr.method == "qr"
    assert svd.boxes == qr.boxes


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    model, names = small_cnn(), ("tucker", "svd")
    file = tmp_path / "latency.json"
    whole = profile(model, eligible(model, names), method_names=names, **FEW, file=file)
    content = json.loads(file.read_text())
    tucker = content["geometries"][0]["forms"][0]
    lost = tucker["boxes"][0]["points"].pop()
    content["geometries"][1]["own"] = None
    file.write_text(json.dumps(content))

    half = LatencyTable.load(file)
    assert [entry.is_finished() for entry in half.geometries] == [False, False]
    with pytest.raises(ArtifactError, match=r"not finished: first, second, answer .*--out"):
        explored(model, file, names)
    resumed = profile(model, eligible(model, names), method_names=names, **FEW, file=file)
    assert all(entry.is_finished() for entry in resumed.geometries)
    points = {p.ranks: p for p in resumed.geometries[0].forms[0].boxes[0].points}
    for kept in whole.geometries[0].forms[0].boxes[0].points:
        if list(kept.ranks) == lost["ranks"]:
            assert points[kept.ranks] != kept  # measured again
        else:
            assert points[kept.ranks] == kept
    assert resumed.geometries[0].own == whole.geometries[0].own
    assert resumed.geometries[1].forms == whole.geometries[1].forms


def test_a_finished_table_is_not_measured_again_and_takes_more_methods(tmp_path: Path) -> None:
    model, file = small_cnn(), tmp_path / "latency.json"
    first = profile(model, eligible(model), method_names=["svd"], **FEW, file=file)
    again = profile(model, eligible(model), method_names=["svd"], **FEW, file=file)
    assert again.geometries == first.geometries
    with pytest.raises(ArtifactError, match="measured without cp"):
        explored(model, file, ("svd", "cp"))
    more = profile(model, eligible(model), method_names=["cp"], **FEW, file=file)
    assert more.geometries[1].own == first.geometries[1].own
    assert {layout.method for layout in more.geometries[0].forms} == {"cp"}
    assert {layout.method for layout in more.geometries[1].forms} == {"svd"}
    assert more.geometries[0].methods == ("svd", "cp")


def explored(model: keras.Model, file: Path, names: Sequence[str]) -> DesignSpace:
    data = tiny_data(train=32, test=16, input_shape=(8, 8, 8), classes=6)
    settings = ExploreSpec(
        methods=tuple(names), samples=16, ranks_per_mode=4, latency=str(file), shards=2
    )
    return explore(model, data, analyze(model, data, settings=settings), settings=settings)


def test_explore_joins_latencies_and_they_survive_the_file(tmp_path: Path) -> None:
    model, file, names = small_cnn(), tmp_path / "latency.json", ("tucker", "svd")
    table = profile(model, eligible(model, names), method_names=names, **FEW, file=file)
    space = explored(model, file, names)
    assert set(space.latency_ms) == {"first", "second", "answer"}
    assert space.latency_ms["first"] == table.geometries[0].own.median_ms  # type: ignore[union-attr]
    assert all(each.latency_ms for each in space.candidates)
    assert space.lineage.inputs["latency"] == table.digest()
    assert DesignSpace.load(space.save(tmp_path / "space.parquet")) == space


def test_shards_together_have_the_latencies_of_the_whole(tmp_path: Path) -> None:
    model, file, names = small_cnn(), tmp_path / "latency.json", ("svd", "cp")
    profile(model, eligible(model, names), method_names=names, **FEW, file=file)
    data = tiny_data(train=32, test=16, input_shape=(8, 8, 8), classes=6)
    settings = ExploreSpec(methods=names, samples=16, ranks_per_mode=4, latency=str(file))
    analysis = analyze(model, data, settings=settings)
    shards = [
        explore(model, data, analysis, settings=settings, shard=Shard(number, 2))
        for number in (1, 2)
    ]
    whole = explore(model, data, analysis, settings=settings)
    assert merged(shards).latency_ms == whole.latency_ms
    assert all(shard.latency_ms for shard in shards)


def test_measuring_first_writes_a_table_and_explores_from_it(tmp_path: Path) -> None:
    model, names = small_cnn(), ("svd",)
    settings = ExploreSpec(methods=names, latency="measure", ranks_per_mode=4)
    file = tmp_path / "latency.json"
    taken = measured_first(settings, model, eligible(model, names), file)
    assert taken.latency == str(file)
    assert LatencyTable.load(file).geometries
    untouched = ExploreSpec(methods=names)
    assert measured_first(untouched, model, [], tmp_path / "none.json") == untouched
    assert not (tmp_path / "none.json").exists()


def test_measuring_while_exploring(trained: Trained) -> None:
    settings = ExploreSpec(
        methods=("svd",), samples=16, ranks_per_mode=4, latency="measure", layers=("hidden",)
    )
    analysis = analyze(trained.model, trained.data, settings=settings)
    space = explore(trained.model, trained.data, analysis, settings=settings)
    assert set(space.latency_ms) == {"hidden"}
    assert all(each.latency_ms for each in space.candidates)


def test_a_table_of_another_model_is_refused_with_the_layers_it_lacks(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    other = keras.Model(inputs, layers.Dense(4)(inputs))
    file = tmp_path / "latency.json"
    profile(other, eligible(other, ["svd"]), method_names=["svd"], **FEW, file=file)
    told = r"another model: it has no layer like first \(Conv2D 3x3x8x8 at 8x8\), .*run lrf profile"
    with pytest.raises(ArtifactError, match=told):
        explored(small_cnn(), file, ("tucker", "svd"))


def test_one_table_serves_several_models(tmp_path: Path) -> None:
    file, names = tmp_path / "latency.json", ("svd",)
    inputs = keras.Input((4,))
    other = keras.Model(inputs, layers.Dense(4, name="other")(inputs))
    profile(other, eligible(other, names), method_names=names, **FEW, file=file)
    table = profile(small_cnn(), eligible(small_cnn(), names), method_names=names, **FEW, file=file)
    assert [entry.layers for entry in table.geometries] == [("other",), ("answer",)]


@pytest.mark.parametrize("content", ["", "{", "{}", '{"schema_version": 2}', "[1]"])
def test_a_damaged_table_is_one_clear_error(content: str, tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    file.write_text(content)
    with pytest.raises(ArtifactError, match="is no LatencyTable of this version"):
        profile(small_cnn(), [], method_names=["svd"], **FEW, file=file)
    with pytest.raises(ArtifactError, match="is no LatencyTable of this version"):
        explored(small_cnn(), file, ("svd",))


def test_what_was_measured_elsewhere_is_not_mixed_in(tmp_path: Path) -> None:
    model, file = small_cnn(), tmp_path / "latency.json"
    table = profile(model, eligible(model, ["svd"]), method_names=["svd"], **FEW, file=file)
    elsewhere = table.machine.model_copy(update={"processor": "Cortex-A76"})
    foreign = table.model_copy(update={"machine": elsewhere})
    foreign.save(file)
    with pytest.raises(ArtifactError, match=r"measured on Cortex-A76 .* another --out"):
        profile(model, eligible(model, ["svd"]), method_names=["svd"], **FEW, file=file)
    assert LatencyTable.load(file) == foreign
    explored(model, file, ("svd",))  # but it can be used


def test_a_folder_that_cannot_be_written_is_told_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        profile(
            small_cnn(),
            eligible(small_cnn(), ["svd"]),
            method_names=["svd"],
            **FEW,
            file=tmp_path / "file" / "latency.json",
        )


def test_calls_of_a_shared_layer_are_measured_together() -> None:
    shared = layers.Conv2D(16, 3, padding="same", name="shared")
    small, large = keras.Input((4, 4, 16)), keras.Input((48, 48, 16))
    both = keras.Model([small, large], [shared(small), shared(large)])
    alone = keras.Model(small, layers.Conv2D(16, 3, padding="same")(small))
    took = []
    for model in (both, alone):
        table = profile(model, eligible(model, ["cp"]), method_names=["cp"], **FEW)
        (entry,) = table.geometries
        assert entry.own is not None
        took.append(entry.own.median_ms)
        assert entry.is_finished()
    assert [len(c.inputs) for c in table.geometries[0].geometry.calls] == [2]
    assert took[0] > 5 * took[1]


def test_dense_on_sequences_nested_models_and_low_precision() -> None:
    inside_in = keras.Input((6, 16))
    inside = keras.Model(inside_in, layers.Dense(12, name="wide")(inside_in), name="inside")
    inputs = keras.Input((6, 16))
    outputs = layers.Dense(8, dtype="float16", name="half")(inside(inputs))
    model = keras.Model(inputs, outputs)
    names = ("svd", "t3f")
    table = profile(model, eligible(model, names), method_names=names, **FEW)
    assert {entry.layers for entry in table.geometries} == {("inside/wide",), ("half",)}
    found = joined(model, table, names)
    assert {each.layer for each in found} == {"inside/wide", "half"}
    assert all(each.latency_ms for each in found)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_channels_first_and_volumes(rank: int) -> None:
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    inputs = keras.Input((8, *[6] * rank))
    model = keras.Model(
        inputs, kind(8, 3, data_format="channels_first", padding="same", name="first")(inputs)
    )
    names = ("tucker", "cp")
    table = profile(model, eligible(model, names), method_names=names, **FEW)
    assert all(each.latency_ms for each in joined(model, table, names))


@keras.saving.register_keras_serializable("test_profile")
def inverse_error_function(x: object) -> object:
    """LiteRT has no such operation."""
    return keras.ops.erfinv(x)


def test_what_litert_cannot_run_has_no_latency_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = keras.Input((8, 8, 8))
    convolution = layers.Conv2D(8, 3, activation=inverse_error_function, name="odd")
    model = keras.Model(inputs, convolution(inputs))
    names, file = ("tucker",), tmp_path / "latency.json"
    table = profile(model, eligible(model, names), method_names=names, **FEW, file=file)
    (entry,) = table.geometries
    assert entry.own is None
    assert entry.is_finished()
    assert "LiteRT cannot express" in entry.reason
    with caplog.at_level(logging.WARNING, "lrf"):
        found = joined(model, table, names)
    assert found
    assert all(each.latency_ms is None for each in found)
    assert "tucker of layer 'odd': LiteRT cannot express" in caplog.text
    again = profile(model, eligible(model, names), method_names=names, **FEW, file=file)
    assert again.geometries == table.geometries


def test_layers_differ_where_their_time_does_and_not_by_weights_or_names() -> None:
    def geometry(**settings: object) -> object:
        inputs = keras.Input((9, 9, 4))
        given = {"kernel_size": 3, "filters": 8, **settings}
        layer = layers.Conv2D(**given)  # type: ignore[arg-type]
        model = keras.Model(inputs, layer(inputs))
        (timed,) = timed_geometries(eligible(model, ["tucker"]), dict(walk(model))).values()
        return timed

    assert geometry(name="a") == geometry(name="b", kernel_regularizer="l2")
    assert geometry(activation=layers.LeakyReLU()) == geometry(activation=layers.LeakyReLU())
    different = [
        geometry(),
        geometry(activation="relu"),
        geometry(activation=layers.LeakyReLU(0.1)),
        geometry(activation=layers.LeakyReLU(0.2)),
        geometry(strides=2),
        geometry(dilation_rate=2),
        geometry(padding="same"),
        geometry(use_bias=False),
        geometry(kernel_size=5),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("name", methods.names())
def test_chains_change_their_layers_at_full_ranks_only(name: str) -> None:
    """What interpolation between chains rests on."""
    inputs = keras.Input((6, 6, 12))
    wide = layers.Conv2D(10, 3, padding="same", name="wide")
    narrow = layers.Conv2D(12, 1, name="narrow")
    flat = layers.Dense(12, name="flat")
    model = keras.Model(inputs, flat(layers.Flatten()(narrow(wide(inputs)))))
    seen = 0
    for record in eligible(model, [name]):
        layer = dict(walk(model))[record.name]
        for layout in methods.get(name).layouts(geometry_of(record)):
            kinds: dict[tuple[bool, ...], set[tuple[str, ...]]] = {}
            for ranks in layout.candidate_ranks(4):
                chain = tuple(type(link).__name__ for link in layout.chain(layer, ranks))
                kinds.setdefault(is_full(ranks, layout.full_ranks), set()).add(chain)
            assert all(len(same) == 1 for same in kinds.values())
            seen += 1
    assert seen


def test_a_cost_is_never_taken_for_a_time() -> None:
    """A candidate of a layout that was not measured has no latency."""
    model = small_cnn()
    table = profile(model, eligible(model, ["svd"]), method_names=["svd"], **FEW)
    found = joined(model, table, ("tucker", "svd"))
    assert {each.latency_ms is None for each in found if each.method == "tucker"} == {True}
    assert all(each.latency_ms for each in found if each.method == "svd")
