"""What each command of `lrf` imports before it works: for its help, and to name a wrong flag.

Each is a process of its own: seconds of the whole of it (the least of several rounds), how many
modules are imported, and which of the large packages are among them: there should be none.

Run: python -m benchmarks.command_imports [--rounds 3] [--out FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import table

COMMANDS = (
    *("compress", "analyze", "profile", "explore", "frontier", "decompose", "finetune"),
    *("validate", "publish", "promote", "export", "spec", "controller", "releases"),
)
LARGE = ("tensorflow", "keras", "pyarrow", "scipy", "kfp", "kubernetes")
PROGRAM = f"""
import sys
sys.argv = ["lrf", *sys.argv[1:]]
from lrf_core.commands import app
try:
    app.main()
except SystemExit:
    print(len(sys.modules), *sorted(set({LARGE}) & set(sys.modules)), file=sys.stderr)
"""


def main() -> None:
    arguments = parse()
    rows = [
        measured(command, flags, arguments.rounds)
        for command, flags in (
            ("lrf", ["--help"]),
            *((command, [command, "--help"]) for command in COMMANDS),
            *((f"{command}, wrong flag", [command, "--wrong"]) for command in COMMANDS),
        )
    ]
    facts: table.Row = {"rounds": arguments.rounds, "machine": table.machine()}
    table.show("Imports of each command", rows, facts, lambda row: bool(row["large packages"]))
    table.write(arguments.out, rows, facts)


def measured(label: str, flags: list[str], rounds: int) -> table.Row:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, *flags], capture_output=True, text=True, check=False
        )
        seconds.append(time.perf_counter() - started)
    modules, *large = ended.stderr.splitlines()[-1].split()
    return {
        "command": label,
        "seconds": round(min(seconds), 2),
        "modules": int(modules),
        "large packages": " ".join(large),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=table.RESULTS / "command_imports.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
