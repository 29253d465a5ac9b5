"""20 trained models are dropped; the controller is killed 10 times, the object store twice.

`lrf controller --local` on SeaweedFS, with real runs of the whole pipeline, two at a time. Kills
(SIGKILL) are spread over the time that the models take, each a random while after so many of them
are done. In the end every model must have exactly one release, and metrics, outcomes beside the
models and the releases' index must agree. A row is a model; `attempts` are the runs it took, and
`seconds` is the time from its acceptance to the moment its release was seen.

Run: python -m benchmarks.controller_soak
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import table
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "controller")]

import seaweed  # noqa: E402
from processes import REAL, Controller, wait_for  # noqa: E402
from tiny import tiny_cnn, tiny_data, train_tiny  # noqa: E402

from lrf_core.models.load import save_model  # noqa: E402
from lrf_core.releases import (  # noqa: E402
    list_releases,
    read_index,
    release_names,
    resolve,
    verify_version,
)
from lrf_core.storage import Store, open_store  # noqa: E402
from pipelines.controller.request_store import RequestStore  # noqa: E402

KILLS, STORE_KILLS = 10, (3, 7)
PATIENCE_S = 4 * 3600.0


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="lrf-soak-", dir=arguments.folder) as name:
        folder = Path(name)
        (folder / "server").mkdir()
        server = seaweed.started(folder / "server")
        os.environ.update(server.server.environment())
        controller = prepared(folder, server, arguments.models)
        try:
            began = time.monotonic()
            killed(controller, server, arguments.models)
            wait_until_done(controller, arguments.models)
            seconds = time.monotonic() - began
            counted = controller.requests()
            require(controller.stop() == 0, "the controller stops when it is told to")
            rows = checked(arguments.models, counted)
        finally:
            controller.kill()
            server.kill()
    facts = {
        "models": arguments.models,
        "controller_killed": KILLS,
        "store_killed": len(STORE_KILLS),
        "seconds": round(seconds),
        "runs": sum(row["attempts"] for row in rows),
        "metrics": counted,
        "server": "SeaweedFS on loopback",
        "machine": table.machine(),
        "load_average": round(os.getloadavg()[1], 1),
    }
    table.show("Controller under fire", rows, facts)
    table.write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=20, help="default: 20")
    parser.add_argument("--folder", type=Path, help="for everything that is made; default: /tmp")
    parser.add_argument("--out", type=Path, default=table.RESULTS / "controller_soak.json")
    return parser.parse_args()


def prepared(folder: Path, server: seaweed.SeaweedProcess, models: int) -> Controller:
    """Models in the bucket, data on disk, and a controller that is not started yet."""
    data = tiny_data(noise=60.0)
    arrays: dict[str, Any] = {}
    for name in ("train", "test"):
        arrays[f"x_{name}"], arrays[f"y_{name}"] = getattr(data, name).arrays()
    np.savez(folder / "data.npz", **arrays)
    incoming = open_store("s3://releases/incoming")
    for number in range(models):
        model = train_tiny(tiny_cnn(seed=number, name=f"tiny-{number}"), data, seed=number)
        save_model(model, folder / "model.keras")
        incoming.put_file(f"model-{number}.keras", folder / "model.keras")
    spec = {
        "data": str(folder / "data.npz"),
        "goal": {"params_reduction": 0.2},
        "explore": {"samples": 64, "ranks_per_mode": 4},
        "finetune": {"epochs": 1},
        "gate": {"max_accuracy_drop": 60.0, "latency_repeats": 3},
        "publish": {"to": "s3://releases/compressed"},
    }
    settings = {
        "state": "s3://releases/state",
        "sources": [{"uri": "s3://releases/incoming", "spec": "small"}],
        "attempts": 5,
        "backoff": "5s",
        "poll": "1s",
    }
    return Controller(
        folder,
        settings,
        {"small": spec},
        server.server.environment(),
        REAL,
        ["--local", str(folder / "runs")],
    )


def killed(controller: Controller, server: seaweed.SeaweedProcess, models: int) -> None:
    """Kill the controller a random while after each share of the models is done."""
    dice = random.Random(7)  # noqa: S311 - the same kills each time
    for kill in range(KILLS):
        controller.start()
        share = models * kill // (KILLS + 1)
        wait_for(partial(_are_done, controller, share), controller.log, within_s=PATIENCE_S)
        time.sleep(dice.uniform(0, 10))
        print(f"kill {kill + 1}: {controller.requests()}", flush=True)
        if kill in STORE_KILLS:
            server.kill()
            print("the object store is killed too", flush=True)
        controller.kill()
        if kill in STORE_KILLS:
            time.sleep(dice.uniform(0, 3))
            server.start()
    controller.start()


def wait_until_done(controller: Controller, models: int) -> None:
    wait_for(lambda: done(controller) == models, controller.log, within_s=PATIENCE_S)
    incoming = open_store("s3://releases/incoming")
    for number in range(models):
        wait_for(partial(is_told, incoming, number), controller.log)


def _are_done(controller: Controller, models: int) -> bool:
    return done(controller) >= models


def done(controller: Controller) -> int:
    states = controller.requests()
    return int(states["published"] + states["refused"] + states["failed"])


def is_told(incoming: Store, number: int) -> bool:
    return bool(told(incoming, number)["state"] == "published")


def told(incoming: Store, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(incoming.get(f"model-{number}.keras.lrf.json"))
    return found


def require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"not so: {what}")


def checked(models: int, counted: dict[str, int]) -> list[table.Row]:
    """A row for each model. Ends the program where anything is lost, doubled or at odds."""
    releases, incoming = (
        open_store("s3://releases/compressed"),
        open_store("s3://releases/incoming"),
    )
    names = release_names(releases)
    require(
        sorted(names) == sorted(f"tiny-{number}" for number in range(models)),
        "every model is released, and nothing else",
    )
    requests = RequestStore(open_store("s3://releases/state")).requests()
    agree = len(requests) == counted["published"] == models
    require(agree, "metrics and state store agree")
    rows = []
    for number in range(models):
        name = f"tiny-{number}"
        index = read_index(releases, name)
        require(index is not None and len(index.versions) == 1, f"{name} has one release")
        require(verify_version(releases, name, 1) == [], f"the release of {name} is whole")
        [line] = list_releases(releases, name)
        listed = resolve(releases, name, line.number)
        outcome = told(incoming, number)
        same = outcome["release"] == listed.release.location
        require(same, f"the outcome beside {name} names its release")
        request = requests[outcome["request"]].request
        summary = listed.release.summary
        rows.append(
            {
                "model": name,
                "state": request.state,
                "releases": len(list_releases(releases, name)),
                "attempts": request.attempts,
                "seconds": round((request.since - request.created).total_seconds()),
                "params_before": summary.params_before,
                "params_after": summary.params_after,
            }
        )
    return rows


if __name__ == "__main__":
    main()
