"""`python -m pipelines.controller.run_here DIR LOCK COMMAND...`: one run, and how it ended.

A process of its own, which goes on when the controller dies. It holds the lock, an open file that
it was given, as long as it lives, and so does the command: by that it is found again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

RESULT, OUTPUT, LOG = "result.json", "stdout.json", "log"


def main(folder: Path, lock: int, command: list[str]) -> None:
    """Run the command and write its exit code and last words; whole, or not at all."""
    with (folder / OUTPUT).open("wb") as output, (folder / LOG).open("ab") as log:
        ended = subprocess.run(  # noqa: S603 - the controller's own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            pass_fds=(lock,),
            check=False,
        )
    said = _last_line(folder / LOG)
    written = folder / f"{RESULT}.new"
    written.write_text(json.dumps({"exit_code": ended.returncode, "said": said}))
    written.replace(folder / RESULT)


def _last_line(log: Path) -> str:
    with log.open("rb") as content:
        content.seek(max(log.stat().st_size - 4096, 0), os.SEEK_SET)
        lines = content.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:1000] if lines else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
