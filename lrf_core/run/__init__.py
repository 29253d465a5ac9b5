"""Runs by a spec. Every way to run lrf goes through here: commands, components, the controller.

- `steps`: each stage with the settings of the spec. A new stage or option is wired there, once.
- `workflow`: all stages in one process; `resume`: which of them an earlier run has finished.
- `outputs`: the folder of a run, and what a release carries of it.
- `results`: the lineage and the report; `summary`: what a terminal shows at the end.
- `in_memory`: a compression without files.

Exit code 3 is decided by `Verdict.passed` of the selected candidate (`Judgement.verdict`).
"""
