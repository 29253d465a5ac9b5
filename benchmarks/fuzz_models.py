"""Load mutated model files: each is read or refused, runs nothing, reads nothing else, stays small.

    python -m benchmarks.fuzz_models --count 2000

Configs of real models get parts of Keras in random places, other types, missing keys; files get
flipped, cut and inserted bytes. What Keras looks up, what Python opens, and memory are recorded.
"""

from __future__ import annotations

import argparse
import collections
import copy
import gc
import json
import os
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import h5py  # noqa: E402
import keras  # noqa: E402
from keras.src.saving import serialization_lib  # noqa: E402

from benchmarks.table import RESULTS, machine, show, write  # noqa: E402
from lrf_core.errors import EXIT_BAD_INPUT, LrfError  # noqa: E402
from lrf_core.models import allowed  # noqa: E402
from lrf_core.models.load import load_model  # noqa: E402

layers = keras.layers
Config = dict[str, Any]


def convolutional() -> keras.Model:
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = keras.ops.relu(x + layers.Conv2D(4, 1, name="side")(x))[:, ::2]
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, "softmax", name="answer")(x), name="conv_net")


def recurrent() -> keras.Model:
    inputs = keras.Input((5, 4), name="steps")
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(inputs)
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = layers.TimeDistributed(layers.Dense(3, kernel_regularizer="l2"), name="each")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)), name="recurrent")


def nested() -> keras.Model:
    block = keras.Sequential([keras.Input((6,)), layers.Dense(6, "relu")], name="block")
    inputs = keras.Input((6,), name="x")
    outputs = {"a": layers.Dense(2, name="a")(block(block(inputs))), "b": block(inputs)}
    return keras.Model({"x": inputs}, outputs, name="outer")


def preprocessing() -> keras.Model:
    words = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot", name="words")
    word = keras.Input((1,), dtype="string", name="word")
    numbers = keras.Input((3,), name="numbers")
    scaled = layers.Normalization(mean=[0.0] * 3, variance=[1.0] * 3, name="scale")(numbers)
    both = layers.Concatenate()([words(word), scaled])
    return keras.Model([word, numbers], layers.Dense(2)(both), name="words")


MODELS = (convolutional, recurrent, nested, preprocessing)


@dataclass(frozen=True)
class Seed:
    """A sound model file: its config, and its bytes with a config to be filled in."""

    suffix: str
    config: Config
    content: bytes
    weights: bytes | None

    def write(self, folder: Path, config: str | None) -> tuple[Path, Path | None]:
        """Write the file, with another config text if one is given, and its weights."""
        path = folder / f"model{self.suffix}"
        weights = None
        if self.suffix == ".json":
            path.write_text(config or json.dumps(self.config))
            weights = folder / "model.weights.h5"
            weights.write_bytes(self.weights or b"")
            return path, weights
        path.write_bytes(self.content)
        if config is not None and self.suffix == ".h5":
            with h5py.File(path, "a") as file:
                file.attrs["model_config"] = config
        elif config is not None:
            with zipfile.ZipFile(path) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            with zipfile.ZipFile(path, "w") as archive:
                for name, each in {**members, "config.json": config.encode()}.items():
                    archive.writestr(name, each)
        return path, None


def seeds(folder: Path) -> list[Seed]:
    """Small models in every format that is read."""
    found = []
    for make in MODELS:
        model = make()
        model.save_weights(folder / "seed.weights.h5")
        weights = (folder / "seed.weights.h5").read_bytes()
        found.append(Seed(".json", json.loads(model.to_json()), b"", weights))
        model.save(folder / "seed.keras")
        content = (folder / "seed.keras").read_bytes()
        found.append(Seed(".keras", json.loads(model.to_json()), content, None))
        if make is not convolutional:  # Keras cannot read its operations from .h5
            model.save(folder / "seed.h5")
            with h5py.File(folder / "seed.h5") as file:
                config = json.loads(file.attrs["model_config"])
            found.append(Seed(".h5", config, (folder / "seed.h5").read_bytes(), None))
    return found


def symbols() -> list[tuple[str, str]]:
    """(module, name) of all that Keras exports, and of all operations."""

    def below(module: ModuleType) -> Iterator[tuple[str, str]]:
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith("_") or name == "src":
                continue
            if isinstance(value, ModuleType) and value.__name__.startswith("keras."):
                yield from below(value)
            elif callable(value):
                yield module.__name__, name

    hidden = ["Switch", "Cond", "Map", "Scan", "WhileLoop", "VectorizedMap", "ForiLoop"]
    return sorted({*below(keras), *(("keras.src.ops.core", name) for name in hidden)})


def mutated_config(config: Config, draw: random.Random, names: list[tuple[str, str]]) -> str:
    """The text of a config with one to four changes."""
    new = copy.deepcopy(config)
    try:
        for _ in range(draw.randint(1, 4)):
            _change(new, draw, names)
        text = json.dumps(new)
    except RecursionError:
        return "[" * 5000
    if draw.random() < 0.1:  # a key twice
        text = text.replace('"class_name":', '"class_name": "Lambda", "class_name":', 1)
    return text


def _change(new: Config, draw: random.Random, names: list[tuple[str, str]]) -> None:
    holder, key = draw.choice(list(_places(new)))
    change = draw.randrange(8)
    module, name = draw.choice(names)
    made: dict[str, Any] = {
        "module": module,
        "class_name": name,
        "config": {},
        "registered_name": None,
    }
    function = {**made, "class_name": "function", "config": name, "registered_name": name}
    if change == 0:
        holder[key] = draw.choice([made, function, name, f"{module}.{name}", [function]])
    elif change == 1 and isinstance(holder[key], dict):
        holder[key].update(draw.choice([made, function, {"class_name": name}]))
    elif change == 2:
        holder[key] = draw.choice(_VALUES)
    elif change == 3:
        del holder[key]
    elif change == 4 and isinstance(holder[key], list):
        holder[key].insert(0, draw.choice([made, function, name, None, copy.copy(holder[key])]))
    elif change == 5:
        other, at = draw.choice(list(_places(new)))
        holder[key] = copy.deepcopy(other[at])
    elif change == 6 and isinstance(holder[key], dict):
        extra = draw.choice(["fn", "function", "filepath", "registered_name", "layer", "dtype"])
        holder[key][extra] = draw.choice([made, function, name, "/etc/passwd"])
    elif change == 7:
        for _ in range(draw.choice([1, 50, 900])):
            holder[key] = [holder[key]]


# Which start of the machine this is: temporary folders of another one are swept.
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 31,
    1 << 62,
    1 << 80,
    1e308,
    float("nan"),
    float("inf"),
]
_VALUES += ["", "relu", "é b", "../../x", "/etc/passwd", [], {}, [None] * 50, {"class_name": 3}]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a config."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to eight changes of bytes: flipped, cut off, put in, or taken out."""
    new = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(new))
        change = draw.randrange(5)
        if change < 2:
            new[at] ^= 1 << draw.randrange(8)
        elif change == 2:
            new[at : at + 8] = draw.randbytes(8)
        elif change == 3:
            new[at:at] = draw.randbytes(draw.randint(1, 64))
        elif draw.random() < 0.3:
            del new[max(at, 1) :]
        else:
            del new[at : at + draw.randint(1, 64)]
        if not new:
            return b"\0"
    return bytes(new)


def mutated_file(
    seed: Seed, draw: random.Random, names: list[tuple[str, str]], folder: Path
) -> tuple[Path, Path | None]:
    """Write a mutated model file, and the weights beside it."""
    if draw.random() < 0.7:
        return seed.write(folder, mutated_config(seed.config, draw, names))
    path, weights = seed.write(folder, None)
    if seed.suffix == ".keras" and draw.random() < 0.5:
        _mutate_member(path, draw)
        return path, weights
    target = weights if weights and draw.random() < 0.7 else path
    target.write_bytes(mutated_bytes(target.read_bytes(), draw))
    return path, weights


def _mutate_member(path: Path, draw: random.Random) -> None:
    """Change bytes of what is in a .keras file, under sound checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(members))
    members[name] = mutated_bytes(members[name], draw)
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content)


@dataclass
class Watch:
    """What happens in this process while a file is loaded."""

    folder: Path
    on: bool = False
    executed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    @classmethod
    def started(cls, folder: Path) -> Watch:
        """One that listens as long as the process lives, and records within `watching`."""
        watch, known = cls(folder), {id(each) for each in _allowed_objects()}
        look_up = serialization_lib._retrieve_class_or_fn

        def watched(*arguments: Any, **settings: Any) -> Any:
            found = look_up(*arguments, **settings)
            if watch.on and id(found) not in known:
                watch.executed.append(str(found))
            return found

        serialization_lib._retrieve_class_or_fn = watched
        sys.addaudithook(watch._heard)
        return watch

    @contextmanager
    def watching(self) -> Iterator[None]:
        temporary, tempfile.tempdir, self.on = tempfile.tempdir, str(self.folder), True
        try:
            yield
        finally:
            tempfile.tempdir, self.on = temporary, False

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            # Copies are removed by their names below an open folder.
            removing = arguments[1] is None and "/" not in path
            mine = (str(self.folder), sys.prefix, sys.base_prefix, _BOOT_ID)
            if not removing and not path.startswith(mine):
                self.outside.append(path)
        elif event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")):
            self.outside.append(f"{event} {arguments!r:.200}")


def _allowed_objects() -> Iterator[Any]:
    for name in allowed.LAYERS:
        yield getattr(layers, name)
    for module, names in allowed.OPERATIONS.items():
        yield from (getattr(sys.modules[module], name) for name in names)
    for place in (
        allowed.ACTIVATION,
        allowed.INITIALIZER,
        allowed.REGULARIZER,
        allowed.CONSTRAINT,
    ):
        of_place = sys.modules[f"keras.src.{place.module.removeprefix('keras.')}"].ALL_OBJECTS_DICT
        yield from (of_place[name] for name in place.names)
    functional = sys.modules["keras.src.models.functional"].Functional
    yield from (functional, keras.Model, keras.Sequential, keras.random.SeedGenerator)
    yield from (keras.DTypePolicy, keras.dtype_policies.DTypePolicy)


def outcome_of(path: Path, weights: Path | None) -> str:
    """Load a file as a command does; "loaded", "refused", or the type of what went wrong."""
    try:
        load_model(path, weights)
    except LrfError as error:
        one_line = "\n" not in str(error)
        return "refused" if error.exit_code == EXIT_BAD_INPUT and one_line else repr(error)[:300]
    except Exception as error:  # noqa: BLE001 - what the fuzzing is for
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "loaded"


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lrf-fuzz-") as folder:
        result = fuzz(Path(folder), range(given.first, given.first + given.count))
    unexpected = result.pop("unexpected")
    rows = [{"files": key, "number": value} for key, value in result.items()]
    facts = {"count": given.count, "first": given.first, "machine": machine()}
    show("Mutated model files", rows, facts)
    write(RESULTS / "fuzz_models.json", rows, {**facts, "unexpected": unexpected})
    for line in unexpected:
        print(line)
    sys.exit(bool(unexpected))


def fuzz(folder: Path, numbers: range) -> dict[str, Any]:
    """Load one mutated file per number; what became of them."""
    found, names = seeds(folder), symbols()
    for seed in found:  # sound ones are loaded
        sound = outcome_of(*seed.write(folder, None))
        if sound != "loaded":
            raise RuntimeError(f"a sound {seed.suffix} file is not loaded: {sound}")
    watch = Watch.started(folder)
    outcomes: collections.Counter[str] = collections.Counter()
    unexpected, slowest, before = [], 0.0, peak_megabytes()
    for number in numbers:
        draw = random.Random(number)  # noqa: S311 - the same files each time
        path, weights = mutated_file(draw.choice(found), draw, names, folder)
        start = time.monotonic()
        with watch.watching():
            outcome = outcome_of(path, weights)
        slowest = max(slowest, time.monotonic() - start)
        expected = outcome in ("loaded", "refused")
        outcomes[outcome if expected else "unexpected"] += 1
        if not expected:
            unexpected.append(f"{number}: {outcome}")
        if number % 100 == 99:
            keras.backend.clear_session()
            gc.collect()
            print(number + 1, dict(outcomes), file=sys.stderr)
    unexpected += [f"executed {each}" for each in sorted(set(watch.executed))]
    unexpected += [f"opened {each}" for each in sorted(set(watch.outside))]
    return {
        "loaded": outcomes["loaded"],
        "refused, exit code 2": outcomes["refused"],
        "unexpected, exit code 1": outcomes["unexpected"],
        "parts made that are on no list": len(watch.executed),
        "files, sockets or processes opened": len(watch.outside),
        "peak memory above sound models, MB": peak_megabytes() - before,
        "slowest, s": round(slowest, 1),
        "unexpected": unexpected,
    }


if __name__ == "__main__":
    main()
