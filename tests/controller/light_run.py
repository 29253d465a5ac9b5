"""In place of `python -m pipelines run`: publishes a real release of a model that is a few bytes.

What the model says decides: `no...` is refused by the gate, `bad...` is bad input, `shaky...` fails
at its first attempt. No TensorFlow is imported.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
import time
from pathlib import Path

import yaml
from proposals import SUMMARY, Content

from lrf_core.artifacts import Check, Cost, Lineage, ModelMeasures, Release, Verdict
from lrf_core.errors import LrfError
from lrf_core.storage import open_store
from lrf_core.storage.inputs import file_at


def verdict_of(content: Content, passed: bool) -> Verdict:
    check = Check(name="accuracy_drop", limit="<= 1 point", measured="0.5 points", passed=passed)
    before, after = (
        ModelMeasures(cost=Cost(params=params, macs=macs), weight_bytes=size, accuracy=accuracy)
        for params, macs, size, accuracy in (
            (SUMMARY.params_before, SUMMARY.macs_before, 400, 90.0),
            (SUMMARY.params_after, SUMMARY.macs_after, 200, 89.5),
        )
    )
    return Verdict(
        lineage=Lineage(inputs={}, settings={}, versions={}),
        passed=passed,
        baseline_digest="b" * 64,
        candidate_digest=content.digest,
        checks=(check,),
        baseline=before,
        candidate=after,
    )


def run(spec: dict[str, object], out: Path) -> int:
    publish = spec["publish"]
    assert isinstance(publish, dict)
    model = file_at(str(spec["model"]))
    assert model is not None
    said = model.read_bytes()
    if said.startswith(b"bad"):
        raise SystemExit(end("the model cannot be read", 2))
    marker = out / "tried"
    if said.startswith(b"shaky") and not marker.exists():
        marker.touch()
        raise SystemExit(end("no space left on the device", 1))
    content = Content(out / "files", b"compressed " + said, name=publish.get("name") or "fleet")
    passed = not said.startswith(b"no")
    release: Release | None = None
    if passed:
        time.sleep(0.3)
        release = content.write(open_store(str(publish["to"]))).release
    print(
        json.dumps(
            {
                "verdict": verdict_of(content, passed).model_dump(mode="json"),
                "release": release.model_dump(mode="json") if release else None,
                "report": str(out / "report.html"),
            }
        )
    )
    return 0 if passed else 3


def end(reason: str, code: int) -> int:
    sys.stderr.write(f"lrf: {reason}\n")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("spec", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "alone").open("ab") as alone, (asked.out / "runs").open("ab") as runs:
        try:
            fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            runs.write(b"two at once\n")
            raise
        runs.write(f"{asked.spec.parent.name}\n".encode())
        runs.flush()
        try:
            sys.exit(run(yaml.safe_load(asked.spec.read_bytes()), asked.out))
        except LrfError as error:
            sys.exit(end(str(error), error.exit_code))
