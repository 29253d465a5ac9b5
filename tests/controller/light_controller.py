"""`python light_controller.py CONFIG DIR`: the controller, with runs that take a moment."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pipelines.controller.local_runs import LocalRuns
from pipelines.controller.process import check_places, run_with
from pipelines.controller.settings import load_settings, load_specs

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    logging.getLogger("lrf").setLevel("INFO")
    settings = load_settings(Path(sys.argv[1]))
    specs = load_specs(settings.specs)
    check_places(settings, specs)
    command = (sys.executable, str(Path(__file__).with_name("light_run.py")))
    run_with(settings, specs, LocalRuns(Path(sys.argv[2]), command))
