"""Run the pipeline on this machine: kfp.local, every step a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kfp import local

from lrf_core.artifacts import (
    MODEL_FILE,
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Plan,
    PlanOutcome,
    Release,
    Verdicts,
)
from lrf_core.console import interrupts
from lrf_core.errors import ArtifactError, DataError, LrfError, ModelError
from lrf_core.files.atomic import write_atomically_with
from lrf_core.files.folder_lock import lock_folder
from lrf_core.files.scratch import scratch_folder
from lrf_core.run.outputs import Outputs
from lrf_core.run.results import write_lineage
from lrf_core.run.steps import Judgement
from lrf_core.run.workflow import RunResult
from lrf_core.sandbox.setting import sandbox_default
from lrf_core.spec import Spec
from lrf_core.storage import open_store
from lrf_core.storage.inputs import is_absent
from pipelines.compress import NAME, compress
from pipelines.relay import Relay, relayed

LOG_FILE = "run.log"

_FUNCTION = re.compile(r"[\w.]+:\w+")


class StepError(LrfError):
    """A step of the pipeline failed; the message is its own, and so is the exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(spec: Spec, say: Callable[[str], None]) -> RunResult:
    """Run the whole pipeline and leave its artifacts in `spec.out`, as `lrf compress` does.

    What kfp.local keeps of each step, and the whole log, is below `pipeline/` there, until the
    next run.

    Args:
        say: called with each line that a step logs, its progress.

    Raises:
        StepError: a step failed.
        LrfError: bad input that can be seen before any step starts, or another run in `spec.out`.
    """
    outputs = Outputs(Path(spec.out))
    # Steps run elsewhere: the spec they get names the places.
    spec = spec.in_own_folder()
    _check_inputs(spec)
    with lock_folder(outputs.folder):
        return _run(spec, outputs, say)


def _run(spec: Spec, outputs: Outputs, say: Callable[[str], None]) -> RunResult:
    folder = _cleared(outputs)
    with (folder / LOG_FILE).open("w", encoding="utf-8", buffering=1) as log:
        relay = Relay(log, say)
        try:
            interrupts.adopt_orphans()
            # Its threads would start the next step, and be waited for.
            with (
                relayed(relay),
                _known_warnings(),
                _own_temporaries(),
                interrupts.at_once(),
                sandbox_default(False),  # the user's own model, as for commands
            ):
                local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
                compress(spec=spec.model_dump_json())
        except RuntimeError as error:  # kfp.local names the step that failed, and no reason
            _collect(folder, outputs)
            raise _failure(relay, error, folder / LOG_FILE) from None
    _collect(folder, outputs)
    return _result(folder, outputs)


def _check_inputs(spec: Spec) -> None:
    """What can be seen without TensorFlow; analyze looks closer."""
    for kind, path in (("model", spec.model), ("weights", spec.weights)):
        if path is not None and is_absent(path):
            raise ModelError(f"no {kind} at {path}; give the path of a .keras or .h5 file")
    if is_absent(spec.data) and not _FUNCTION.fullmatch(spec.data):
        raise DataError(
            f"no data at {spec.data}; give an .npz file, a folder of class folders of images, or "
            "module:function"
        )
    open_store(str(spec.publish.to)).check()
    if spec.explore.cache:
        open_store(spec.explore.cache).check()


def _cleared(outputs: Outputs) -> Path:
    """The folder for kfp.local, empty; and no artifact of an earlier run beside it."""
    folder = outputs.folder / "pipeline"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(f"{NAME}-*"):
            shutil.rmtree(earlier)
        outputs.clear_plans()
        # `lrf compress` must not take what this run leaves for stages that it has finished.
        shown = (*_of_run(outputs).values(), *_of_plan(outputs).values(), outputs.verdict)
        for file in (*shown, outputs.override, outputs.steps):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {outputs.folder}: {error.strerror or error}") from None
    return folder


def _of_run(outputs: Outputs) -> dict[str, Path]:
    """Where kfp.local leaves each artifact below the folder of a run, and where it is copied to."""
    return {
        "analyze/analysis": outputs.analysis,
        "merge/design_space": outputs.design_space,
        "validate/report": outputs.report,
        "validate/lineage": outputs.lineage,
    }


def _of_plan(outputs: Outputs) -> dict[str, Path]:
    """The same of one plan, below the folder of one iteration of the loop."""
    return {
        "decompose/plan": outputs.plan,
        f"decompose/factorized/{MODEL_FILE}": outputs.factorized,
        "finetune/training": outputs.finetune,
        f"finetune/candidate/{MODEL_FILE}": outputs.candidate,
    }


def _collect(folder: Path, outputs: Outputs) -> None:
    """Copy what there is; after a failure that is less than everything."""
    for made, target in _of_run(outputs).items():
        for source in folder.glob(f"{NAME}-*/**/{made}"):
            _copy(source, target)
    for file in folder.glob(f"{NAME}-*/**/decompose/plan"):
        plan, iteration = Plan.load(file), file.parent.parent
        for made, target in _of_plan(outputs.of_plan(plan.number, plan.asked)).items():
            if (iteration / made).is_file():
                _copy(iteration / made, target)


def _copy(source: Path, target: Path) -> None:
    write_atomically_with(target, partial(shutil.copyfile, source))


def _result(folder: Path, outputs: Outputs) -> RunResult:
    analysis = Analysis.load(outputs.analysis)
    [file] = folder.glob(f"{NAME}-*/**/validate/verdicts")
    judged = Verdicts.load(file)
    outcomes = []
    for place, verdict in zip(outputs.of_plans(), judged.verdicts, strict=True):
        verdict.save(place.verdict)
        plan, record = Plan.load(place.plan), FinetuneRecord.load(place.finetune)
        outcomes.append(PlanOutcome(plan, record, verdict))
    judgement = Judgement(tuple(outcomes), judged.picked)
    plan = judgement.outcome.plan
    outputs.copy_from(outputs.of_plan(plan.number, plan.asked))
    published = [Release.load(file) for file in folder.glob(f"{NAME}-*/**/publish/release")]
    if bool(published) != judgement.verdict.passed:
        # A condition that kfp.local cannot resolve counts as false there, without an error.
        raise ArtifactError(
            f"the verdict in {outputs.verdict} says passed={judgement.verdict.passed}, but "
            f"{len(published)} releases were made; see the log in {folder / LOG_FILE}"
        )
    release = published[0] if published else None
    if release:
        space = DesignSpace.load(outputs.design_space)
        write_lineage(outputs.lineage, analysis, space, judgement.outcome, release=release)
    return RunResult(outputs, analysis, judgement, release)


def _failure(relay: Relay, error: RuntimeError, log: Path) -> StepError:
    if relay.failed:
        code = relay.failed.exit_code or LrfError.exit_code
        return StepError(f"{relay.failed.stage}: {relay.failed.text}", code)
    reason = relay.last_exception or " ".join(str(error).split())
    return StepError(f"a step stopped unexpectedly: {reason}; its log is {log}", LrfError.exit_code)


@contextmanager
def _own_temporaries() -> Iterator[None]:
    """Give kfp and its steps a folder for temporary files: it leaves some behind for each step."""
    before, tempdir = os.environ.get("TMPDIR"), tempfile.tempdir
    with scratch_folder("steps") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            os.environ.pop("TMPDIR")
            tempfile.tempdir = tempdir
            if before is not None:
                os.environ["TMPDIR"] = before


@contextmanager
def _known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # It guesses from the image's name that this Python may lack what the image has.
        warnings.filterwarnings(
            "ignore", "You may be attemping to run a task that uses custom", RuntimeWarning
        )
        warnings.filterwarnings("ignore", r"Task '.*': settings \['display_name'\]", UserWarning)
        yield
