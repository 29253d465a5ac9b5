"""How fast do files go to S3 and back: this store against the minio client's own calls.

A SeaweedFS is started for it. One large file, and a set of files as a release has, are sent by
`Store.put_file` and read by `Store.get_file`, and by `fput_object` and `fget_object` of the minio
client, in turns, each time by a new process. `put_file` is told the sha256, as in publishing, where
the manifest has it: it compares and records it, and sends the MD5 of each part. `get_file` compares
the sha256 of what came. Parts that go up are equally large and equally many at once; minio reads an
object as one stream. `peak` is the resident memory above that of the process before.

Run: python -m benchmarks.object_storage
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import seaweed  # noqa: E402

MIB = 1 << 20
MUST_REACH = 0.8
MOST_MEMORY_MIB = 256
SIDES = ("minio", "store")
WAYS = ("up", "down")
# Sizes in KiB of the files of a release of a VGG-like network: models, then records.
RELEASE = (98_000, 98_000, 49_000, 1_500, 420, 180, 64, 48, 40, 24, 16, 12, 8, 4, 2, 1)


def main() -> None:
    arguments = parse()
    if arguments.side:
        print(json.dumps(one_turn(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), arguments)
    facts = {
        "rounds": arguments.rounds,
        "part_mib": part_bytes() / MIB,
        "parts_at_once": parts_at_once(),
        "least_ratio": min(row["ratio"] for row in rows),
        "most_memory_mib": max(row["store_peak_mib"] for row in rows),
        "server": "SeaweedFS 4.48 on loopback",
        "machine": table.machine(),
        # What else ran: hashing needs a core of its own, or takes it from the server.
        "load_average": round(os.getloadavg()[1], 1),
    }
    table.show("Object storage", rows, facts, lambda row: row["ratio"] < MUST_REACH)
    table.write(arguments.out, rows, facts)
    if facts["least_ratio"] < MUST_REACH or facts["most_memory_mib"] > MOST_MEMORY_MIB:
        raise SystemExit("slower, or larger, than it must be")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=1024, help="of the large file; default: 1024")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--out", type=Path, default=table.RESULTS / "object_storage.json")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(folder: Path, arguments: argparse.Namespace) -> list[table.Row]:
    """Rows of the medians over all rounds."""
    contents = {
        f"one file of {arguments.mib} MiB": [arguments.mib * 1024],
        f"{len(RELEASE)} files of a release": list(RELEASE),
    }
    for number, sizes in enumerate(contents.values()):
        write_files(folder / str(number), sizes)
    (folder / "server").mkdir()
    server = seaweed.started(folder / "server", "-master.volumeSizeLimitMB=1024")
    rows = []
    try:
        for number, (name, sizes) in enumerate(contents.items()):
            turns = in_turns(folder / str(number), server.server, arguments.rounds)
            rows += [row_of(name, sum(sizes) / 1024, way, turns) for way in WAYS]
    finally:
        server.kill()
    return rows


def write_files(folder: Path, sizes: list[int]) -> None:
    """Random bytes, which nothing can compress."""
    folder.mkdir()
    for number, kib in enumerate(sizes):
        with (folder / f"{number:02}").open("wb") as file:
            for start in range(0, kib, 1024):
                file.write(os.urandom(min(1024, kib - start) * 1024))


Turns = dict[tuple[str, str], list[dict[str, float]]]


def in_turns(folder: Path, server: seaweed.Seaweed, rounds: int) -> Turns:
    """What each process measured, by side and way; after one round that does not count."""
    turns: Turns = {(side, way): [] for side in SIDES for way in WAYS}
    for number in range(rounds + 1):
        # Whoever comes first finds other caches than whoever comes second.
        for side in SIDES if number % 2 else SIDES[::-1]:
            for way in WAYS:
                found = in_process(folder, server, side, way)
                print(f"round {number}: {side} {way} {found}", file=sys.stderr)
                if number:
                    turns[side, way].append(found)
    return turns


def in_process(folder: Path, server: seaweed.Seaweed, side: str, way: str) -> dict[str, float]:
    arguments = ["--side", side, "--way", way, "--folder", str(folder)]
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.object_storage", *arguments],
        cwd=ROOT,
        env={**os.environ, **server.environment()},
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, float] = json.loads(found.stdout)
    return result


def row_of(name: str, mib: float, way: str, turns: Turns) -> table.Row:
    def median(side: str, what: str) -> float:
        return statistics.median(turn[what] for turn in turns[side, way])

    ours, theirs = mib / median("store", "seconds"), mib / median("minio", "seconds")
    return {
        "content": name,
        "way": way,
        "minio_mib_s": round(theirs, 1),
        "store_mib_s": round(ours, 1),
        "ratio": round(ours / theirs, 3),
        "minio_peak_mib": round(max(turn["peak"] for turn in turns["minio", way]), 1),
        "store_peak_mib": round(max(turn["peak"] for turn in turns["store", way]), 1),
    }


def one_turn(arguments: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: seconds, and peak memory above idle in MiB."""
    transfer = transfers()[arguments.side, arguments.way]
    sources = sorted(path for path in arguments.folder.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as back:
        targets = [Path(back) / source.name for source in sources]
        idle = memory_mib("VmRSS")
        forget_peak()
        digests = [digest_of(source) for source in sources]
        started = time.perf_counter()
        for source, target, sha256 in zip(sources, targets, digests, strict=True):
            transfer(f"{arguments.folder.name}/{source.name}", source, target, sha256)
        seconds = time.perf_counter() - started
        peak = memory_mib("VmHWM") - idle
    return {"seconds": round(seconds, 3), "peak": round(peak, 1)}


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def transfers() -> dict[tuple[str, str], Callable[[str, Path, Path, str], object]]:
    """What each side does with a key, a file to send, one to write, and the sha256 of both.

    Both have said hello.
    """
    from lrf_core.storage import open_store

    server = seaweed.Seaweed(os.environ["LRF_S3_ENDPOINT"])
    client, bucket = server.client(), server.bucket
    store = open_store(f"s3://{bucket}/store")
    store.check()
    client.bucket_exists(bucket)

    def minio_up(key: str, source: Path, _: Path, __: str) -> None:
        client.fput_object(
            bucket,
            f"minio/{key}",
            str(source),
            part_size=part_bytes(),
            num_parallel_uploads=parts_at_once(),
        )

    return {
        ("minio", "up"): minio_up,
        ("minio", "down"): lambda key, _, target, __: client.fget_object(
            bucket, f"minio/{key}", str(target)
        ),
        ("store", "up"): lambda key, source, _, sha256: store.put_file(key, source, sha256),
        ("store", "down"): lambda key, _, target, sha256: store.get_file(key, target, sha256),
    }


def part_bytes() -> int:
    from lrf_core.storage import transfer

    return transfer.PART_BYTES


def parts_at_once() -> int:
    from lrf_core.storage import transfer

    return transfer.PARTS_AT_ONCE


def memory_mib(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
