"""How long `lrf releases` takes with many releases in a store.

A SeaweedFS is started for it, and releases of small files are written by the code that writes real
ones, all under one name. Each command is a process of its own; `seconds` are of the whole of it,
and `beyond` what it takes longer than for a store with one release; the least of several rounds.
`cpu` are the seconds that it computed, which other work on the machine hardly changes. What comes
out is checked: as many lines as releases, all sound, no garbage.

Run: python -m benchmarks.many_releases
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import table

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "releases")]

import proposals  # noqa: E402
import seaweed  # noqa: E402

from lrf_core.storage import open_store  # noqa: E402

NAME = "tiny"
COMMANDS = {
    "list": ("list", NAME),
    "list of all names": ("list",),
    "list --json": ("list", NAME, "--json"),
    "gc": ("gc", "--older-than", "0"),
    "verify": ("verify", NAME),
}
# What `lrf releases list NAME` may take beyond starting.
MOST_SECONDS = 1.0


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        rows, writing = measured(Path(folder), arguments)
    facts = {
        "releases": arguments.releases,
        "seconds_to_write_one": round(writing / arguments.releases, 3),
        "rounds": arguments.rounds,
        "server": "SeaweedFS 4.48 on loopback",
        "machine": table.machine(),
        "load_average": round(os.getloadavg()[1], 1),
    }
    table.show("Many releases", rows, facts)
    table.write(arguments.out, rows, facts)
    if rows[0]["cpu beyond"] > MOST_SECONDS:
        raise SystemExit(f"list takes more than {MOST_SECONDS:g} s beyond starting")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--releases", type=int, default=500, help="default: 500")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--out", type=Path, default=table.RESULTS / "many_releases.json")
    return parser.parse_args()


def measured(folder: Path, arguments: argparse.Namespace) -> tuple[list[table.Row], float]:
    """A row for each command, and the seconds that writing took."""
    (folder / "server").mkdir()
    server = seaweed.started(folder / "server")
    try:
        os.environ.update(server.server.environment())
        full, small = (f"s3://{server.server.bucket}/{place}" for place in ("full", "small"))
        started = time.perf_counter()
        write(folder / "files", full, arguments.releases)
        writing = time.perf_counter() - started
        write(folder / "files", small, 1)
        rows = []
        for title, command in COMMANDS.items():
            many = [costs(command, full, arguments.releases) for _ in range(arguments.rounds)]
            one = [costs(command, small, 1) for _ in range(arguments.rounds)]
            seconds, cpu = map(min, zip(*many, strict=True))
            starting, cpu_starting = map(min, zip(*one, strict=True))
            rows.append(
                {
                    "command": title,
                    "seconds": round(seconds, 2),
                    "beyond": round(seconds - starting, 2),
                    "cpu": round(cpu, 2),
                    "cpu beyond": round(cpu - cpu_starting, 2),
                }
            )
    finally:
        server.kill()
    return rows, writing


def write(folder: Path, to: str, count: int) -> None:
    store = open_store(to)
    for number in range(count):
        proposals.Content(folder, b"model %d" % number, name=NAME).write(store)
        if number % 50 == 49:
            print(f"{number + 1} of {count} releases written", file=sys.stderr)


def costs(command: tuple[str, ...], store: str, releases: int) -> tuple[float, float]:
    """Seconds that a command takes, and computes. Raises SystemExit unless it says what it must."""
    started, computed = time.perf_counter(), of_children()
    program = [sys.executable, "-c", "from lrf_core.commands.app import main; main()"]
    done = subprocess.run(
        [*program, "releases", *command, "--from", store],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, computed = time.perf_counter() - started, of_children() - computed
    print(f"{command} {store}: {seconds:.2f} s, computed {computed:.2f} s", file=sys.stderr)
    found = done.stdout.count(" v-" if command[0] == "list" else ": sound")
    if "--json" in command:
        found = done.stdout.count('"number"')
    if done.returncode or found != (0 if command[0] == "gc" else releases):
        raise SystemExit(f"{command} says of {releases} releases: {done.stdout}{done.stderr}")
    return seconds, computed


def of_children() -> float:
    """Seconds that processes computed which have ended; the server has not."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
