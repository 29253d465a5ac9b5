"""Damaged inputs of every kind: are they read, or refused in one line, and do they nothing else?

Files as users give them (`.npz`, archives, images, design spaces, specs, verdicts and the other
artifacts) are changed by a seeded generator: bytes flipped, cut, put in and taken out, and their
structure, such as headers that lie, links, aliases, and values of other types. Each is read in a
process with 4 GiB of address space and an audit hook. `read` and `refused` are how it may end;
`other_errors` are exceptions that no command expects (exit code 1), `executed` processes, imports,
sockets and compiled code, `outside` files opened that are not the input, or written anywhere else,
`slow` those that took longer than 20 s, and `crashed` those that ended the process.

Run: python -m benchmarks.fuzz_inputs --count 1000
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "numpy")  # nothing is computed; TensorFlow takes long

import keras
import numpy as np

from benchmarks import mutations, table
from benchmarks.mutations import BYTES, CLASSES, SIDE, Mutation, Random
from lrf_core.artifacts import (
    Analysis,
    Candidate,
    Check,
    Choice,
    Cost,
    DesignSpace,
    EpochRecord,
    FinetuneRecord,
    LayerRecord,
    Lineage,
    ModelMeasures,
    Plan,
    Verdict,
)
from lrf_core.data.archive import unpacked
from lrf_core.data.arrays import open_npz
from lrf_core.data.check import Expected, ExpectedInput
from lrf_core.data.folder import open_folder
from lrf_core.errors import EXIT_BAD_INPUT, LrfError, PublishRefusedError
from lrf_core.exploration.merge import check_whole, merged
from lrf_core.spec import load_spec

ADDRESS_SPACE = 4 << 30
SECONDS = 20
MIB = 1 << 20
# What was not there when the hook was set is not expected to happen while a file is read.
EXECUTES = (
    *("import", "exec", "ctypes.dlopen", "pickle.find_class", "marshal.loads", "code.__new__"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo"),
)
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod")
# Which the ceilings are compared with.
# What the interpreter reads of the machine and of its own packages (their versions).
MACHINE = ("/proc/meminfo", "/sys/fs/cgroup/", sys.prefix, sys.base_prefix)
EXPECTED = Expected(
    (ExpectedInput("image", (SIDE, SIDE, 3), text=False),), keras.Input((SIDE, SIDE, 3)), CLASSES
)
SPEC = """model: model.keras
data: images/
seed: 3
goal: {max_accuracy_drop: 1.0, params_reduction: 0.5}
explore:
  samples: 128
  methods: [tucker, svd]
finetune:
  epochs: 3
gate:
  max_accuracy_drop: 1.5
publish:
  to: file:///tmp/store
"""


@dataclass(frozen=True)
class Kind:
    """A kind of input: how a sound one is made, damaged and read."""

    suffixes: tuple[str, ...]
    make: Callable[[str, Random], bytes]
    mutations: tuple[Mutation, ...]
    read: Callable[[Path], object]


def main() -> None:
    arguments = parse()
    started = time.monotonic()
    each = -(-arguments.count // len(KINDS))
    rows, found = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in KINDS:
            cases = list(tried(Path(folder), name, each, arguments.seed))
            rows.append(counted(name, cases))
            found += [case for case in cases if case["outcome"] not in ("read", "refused")]
            found += [case for case in cases if case.get("executed") or case.get("outside")]
    facts = {
        "cases": sum(row["cases"] for row in rows),
        "other_errors": sum(row["other_errors"] for row in rows),
        "executed": sum(row["executed"] for row in rows),
        "outside": sum(row["outside"] for row in rows),
        "crashed": sum(row["crashed"] for row in rows),
        "peak_mib": max(row["peak_mib"] for row in rows),
        "seconds": round(time.monotonic() - started),
        "seed": arguments.seed,
        "machine": table.machine(),
    }
    table.show("Damaged inputs", rows, facts, lambda row: bool(row["other_errors"]))
    for case in found[:40]:
        print(case)
    table.write(arguments.out, rows, facts)
    if found:
        sys.exit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000, help="files, of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=table.RESULTS / "fuzz_inputs.json")
    return parser.parse_args()


def counted(name: str, cases: list[dict[str, Any]]) -> table.Row:
    ends = Counter(case["outcome"] for case in cases)
    return {
        "kind": name,
        "cases": len(cases),
        "read": ends["read"],
        "refused": ends["refused"],
        "other_errors": ends["error"],
        "executed": sum(len(case.get("executed", ())) for case in cases),
        "outside": sum(len(case.get("outside", ())) for case in cases),
        "slow": ends["slow"],
        "crashed": ends["crashed"],
        "longest_s": max(case.get("seconds", 0.0) for case in cases),
        "peak_mib": max(case.get("peak_mib", 0) for case in cases),
    }


def tried(folder: Path, name: str, each: int, seed: int) -> Iterator[dict[str, Any]]:
    """What came of each file of a kind; a process that dies is started again after the file."""
    fork = multiprocessing.get_context("fork")  # with all that is imported
    done = 0
    while done < each:
        receiver, sender = fork.Pipe(duplex=False)
        worker = fork.Process(target=work, args=(folder, name, seed, range(done, each), sender))
        worker.start()
        sender.close()
        with contextlib.suppress(EOFError):
            while True:
                yield receiver.recv()
                done += 1
        worker.join()
        if done < each:
            yield {"kind": name, "case": done, "outcome": "crashed", "code": worker.exitcode}
            done += 1


@dataclass
class Watch:
    """What Python says happens while a file is read."""

    folder: Path
    is_on: bool = False
    executed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in EXECUTES:
            self.executed.append(f"{event} {arguments!r:.80}")
        elif event == "open" or event in CHANGES:
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else ""
            # Python names what it removes in a folder, which lies here, by the last part alone.
            whole = Path(os.path.normpath(self.folder / path))
            inside = not path or whole.is_relative_to(self.folder)
            if not inside and not (event == "open" and path.startswith(MACHINE)):
                self.outside.append(f"{event} {path}")

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


class TooSlowError(BaseException):
    """A file took too long; not an Exception, so that nothing handles it."""


def too_slow(*_: object) -> None:
    raise TooSlowError


def work(folder: Path, name: str, seed: int, cases: range, sender: Connection) -> None:
    """Read damaged files of one kind, and send what came of each."""
    warnings.simplefilter("ignore")  # of Pillow, about what is damaged
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    os.environ["LRF_CACHE"] = str(folder / "cache")
    kind = KINDS[name]
    for suffix in kind.suffixes:  # imports what reading needs
        sound = folder / f"sound{suffix}"
        sound.write_bytes(kind.make(suffix, np.random.default_rng(seed)))
        kind.read(sound)
        with contextlib.suppress(LrfError):
            sound.write_bytes(b"x")
            kind.read(sound)
    shutil.rmtree(folder / "images", ignore_errors=True)
    watch = Watch(folder)
    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for case in cases:
        place = folder / f"{name} {case}"
        place.mkdir()
        sender.send(one(name, case, seed, place, watch))
        shutil.rmtree(place)
        shutil.rmtree(folder / "cache", ignore_errors=True)


def one(name: str, case: int, seed: int, folder: Path, watch: Watch) -> dict[str, Any]:
    kind, random = KINDS[name], np.random.default_rng([seed, case, len(name)])
    suffix = kind.suffixes[case % len(kind.suffixes)]
    content = kind.make(suffix, random)
    chosen = []
    for _ in range(int(random.integers(1, 3))):
        own = [each for each in kind.mutations if fits(each, suffix)]
        changes = own if random.random() < 0.5 else BYTES
        change = changes[random.integers(len(changes))]
        chosen.append(change.__name__)
        # What was damaged before may have no structure left to change.
        with contextlib.suppress(Exception):
            content = change(content, random)
    file = folder / f"input{suffix}"
    file.write_bytes(content)
    watch.executed.clear()
    watch.outside.clear()
    started = time.monotonic()
    signal.alarm(SECONDS)
    outcome, detail = "read", ""
    try:
        with watch.on():
            kind.read(file)
    except LrfError as error:
        code = error.exit_code
        allowed = code == EXIT_BAD_INPUT or isinstance(error, PublishRefusedError)
        outcome = "refused" if allowed and "\n" not in str(error) else "error"
        detail = str(error)[:200]
    except TooSlowError:
        outcome = "slow"
    except Exception:  # noqa: BLE001 - which is what is looked for
        outcome, detail = "error", traceback.format_exc()[-900:]
    finally:
        signal.alarm(0)
    return {
        "kind": name,
        "case": case,
        "mutations": chosen,
        "outcome": outcome,
        "detail": detail if outcome == "error" else "",
        "seconds": round(time.monotonic() - started, 2),
        "executed": list(watch.executed),
        "outside": list(watch.outside),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MIB,
    }


def fits(mutation: Mutation, suffix: str) -> bool:
    """Whether a mutation is of this format."""
    of = mutation.__name__.partition("_")[0]
    formats = {"zip": (".npz", ".zip"), "tar": (".tar", ".tgz")}
    return suffix in formats.get(of, (suffix,))


def read_samples(data: Any) -> None:
    data.train.read(np.arange(2))
    data.test.read(np.arange(1))


def read_archive(file: Path) -> None:
    read_samples(open_folder(unpacked(file, str(file)), EXPECTED, 0))


def read_image(file: Path) -> None:
    folder = mutations.image_folder(file.parent / "images", "a/0.png", file.read_bytes())
    read_samples(open_folder(folder, EXPECTED, 0))


def read_space(file: Path) -> None:
    space = merged([DesignSpace.load(file)])
    check_whole(space)
    space.lineage.key()
    space.save(file)


def read_settings(file: Path) -> None:
    spec = load_spec(file)
    spec.effective_goal()
    spec.effective_gate()
    spec.effective_decompose()
    spec.effective_cluster()


def read_artifact(file: Path) -> None:
    artifact = ARTIFACTS[file.suffix].load(file)
    artifact.digest()
    artifact.lineage.key()
    artifact.save(file)


LINEAGE = Lineage(inputs={"model": "a" * 64}, settings={"seed": 0, "gate": {"a": [1, 2.5]}})
COST = Cost(params=1000, macs=20_000)
CANDIDATE = Candidate(
    layer="conv",
    method="tucker",
    ranks=(3, 4),
    cost=Cost(params=500, macs=7),
    error=0.1,
    similarity=0.9,
    sensitivity=0.01,
)
MEASURES = ModelMeasures(cost=COST, weight_bytes=4000, accuracy=91.5, samples=100)
ARTIFACTS: dict[str, Any] = {
    ".verdict": Verdict,
    ".plan": Plan,
    ".analysis": Analysis,
    ".finetune": FinetuneRecord,
}


def made_artifact(suffix: str, random: Random) -> bytes:
    made: dict[str, Any] = {
        ".verdict": lambda: Verdict(
            lineage=LINEAGE,
            passed=True,
            baseline_digest="a",
            candidate_digest="b",
            checks=(Check(name="finite", limit="all", measured="all", passed=True),),
            baseline=MEASURES,
            candidate=MEASURES,
            drop_interval=(0.0, 1.0),
        ),
        ".plan": lambda: Plan(
            lineage=LINEAGE,
            policy="knapsack",
            model_digest="a",
            factorized_digest="b",
            choices=(Choice(layer="conv", before=COST, candidate=CANDIDATE),),
            before=COST,
            after=COST,
            predicted_loss=0.1,
        ),
        ".analysis": lambda: Analysis(
            lineage=LINEAGE,
            model_name="m",
            model_digest="a",
            input_shape=(None, 6, 6, 3),
            output_shape=(None, 2),
            layers=(
                LayerRecord(
                    name="conv", kind="Conv2D", kernel_shape=(3, 3), calls=(), cost=COST, share=0.5
                ),
            ),
            baseline=MEASURES,
            shards=(("conv",),),
        ),
        ".finetune": lambda: FinetuneRecord(
            lineage=LINEAGE,
            before_digest="b",
            after_digest="c",
            samples=10,
            steps=3,
            seconds=1.5,
            best_epoch=1,
            curve=(EpochRecord(epoch=1, loss=0.5, validation_loss=0.6, validation_accuracy=91.0),),
        ),
    }
    return saved(made[suffix]())


def made_space(suffix: str, random: Random) -> bytes:
    space = DesignSpace(
        lineage=LINEAGE,
        model_digest="m",
        calibration_digest="c",
        similarity="nmse",
        layers=("conv", "hidden"),
        eligible=("conv", "hidden"),
        candidates=(CANDIDATE,) * 5,
    )
    return saved(space)


def saved(artifact: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        content: bytes = artifact.save(Path(folder) / "made").read_bytes()
    return content


def made_archive(suffix: str, random: Random) -> bytes:
    if suffix == ".zip":
        return mutations.zipped_images(random)
    content = mutations.tar(random)
    while content.startswith(b"\x1f\x8b") != (suffix == ".tgz"):
        content = mutations.tar(random)
    return content


def made_image(suffix: str, random: Random) -> bytes:
    found = mutations.images()
    return next(found[name] for name in found if name.endswith(suffix))


KINDS = {
    "npz": Kind(
        (".npz",),
        lambda suffix, random: mutations.npz(random),
        (
            mutations.npz_of_another_header,
            mutations.zip_of_other_entries,
            mutations.zip_of_other_members,
        ),
        lambda file: read_samples(open_npz(file, EXPECTED, 0)),
    ),
    "archive": Kind(
        (".zip", ".tar", ".tgz"),
        made_archive,
        (
            mutations.zip_of_other_entries,
            mutations.zip_of_other_members,
            mutations.tar_of_other_members,
        ),
        read_archive,
    ),
    "images": Kind(
        (".png", ".jpeg", ".gif", ".bmp", ".tiff", ".webp"),
        made_image,
        (mutations.image_of_another_size, mutations.image_with_a_chunk),
        read_image,
    ),
    "design space": Kind(
        (".parquet",), made_space, (mutations.table_of_other_columns,), read_space
    ),
    "spec": Kind(
        (".yaml",), lambda suffix, random: SPEC.encode(), (mutations.yaml_with_more,), read_settings
    ),
    "artifact": Kind(
        tuple(ARTIFACTS), made_artifact, (mutations.json_of_another_value,), read_artifact
    ),
}


if __name__ == "__main__":
    main()
