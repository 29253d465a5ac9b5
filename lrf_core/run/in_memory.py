"""A compression in memory: no spec, no files, nothing published."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from lrf_core import stages
from lrf_core.artifacts import Analysis, PlanOutcome, Verdict
from lrf_core.artifacts.plan import Plan
from lrf_core.artifacts.training import FinetuneRecord
from lrf_core.data import Data
from lrf_core.run import steps
from lrf_core.run.steps import Candidate, Judgement
from lrf_core.spec import DecomposeSpec, ExploreSpec, FinetuneSpec, GateSpec, Goal, Spec


@dataclass(frozen=True)
class Compression:
    """The result of `compress`.

    Attributes:
        model: the selected candidate: the smallest that passed the gate; if none did, the one that
            failed the fewest checks. An ordinary Keras model of stock layers.
        analysis: the layers of the original, and what it measures.
        judgement: the plan, training and verdict of every candidate.
    """

    model: keras.Model
    analysis: Analysis
    judgement: Judgement

    @property
    def outcome(self) -> PlanOutcome:
        """Of the selected candidate."""
        return self.judgement.outcome

    @property
    def plan(self) -> Plan:
        """What happened to each layer, and the totals before and after."""
        return self.outcome.plan

    @property
    def finetune(self) -> FinetuneRecord:
        """How the selected candidate was trained."""
        return self.outcome.finetune

    @property
    def verdict(self) -> Verdict:
        """The checks of the gate. Use `model` only if `verdict.passed`."""
        return self.outcome.verdict


def compress(
    model: keras.Model,
    data: Data,
    *,
    goal: Goal | None = None,
    explore: ExploreSpec | None = None,
    decompose: DecomposeSpec | None = None,
    finetune: FinetuneSpec | None = None,
    gate: GateSpec | None = None,
    seed: int = 0,
) -> Compression:
    """Compress a model in memory: analyze, explore, decompose, finetune and validate it.

    Args:
        model: a trained classifier with one output; it is not changed.
        data: labelled samples, e.g. of `Data.from_arrays`. The training part calibrates and
            fine-tunes, the test part judges.
        goal: limits that the plan must meet; by default at most 1 point of accuracy lost.
        explore: which layers, methods and calibration samples; by default all and 512.
        decompose: how candidates are chosen, and how many plans are tried.
        finetune: how the candidates are trained; `FinetuneSpec(epochs=0)` skips it.
        gate: limits of the checks; by default those of the goal.
        seed: of everything random.

    Raises:
        ModelError: the model cannot be compressed, e.g. is no classifier with one output.
        DataError: the data does not fit the model.
        GoalError: no plan meets the goal.
        SpecError: settings contradict each other.

    Example:
        >>> import keras, numpy as np
        >>> import lrf_core as lrf
        >>> x = np.random.default_rng(0).normal(size=(400, 16)).astype("float32")
        >>> y = (x[:, 0] > 0).astype(int)
        >>> layers = [keras.Input((16,)), keras.layers.Dense(64, "relu"),
        ...           keras.layers.Dense(64, "relu"), keras.layers.Dense(2, "softmax")]
        >>> model = keras.Sequential(layers)
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> _ = model.fit(x, y, epochs=5, verbose=0)
        >>> result = lrf.compress(
        ...     model,
        ...     lrf.Data.from_arrays(x, y),
        ...     goal=lrf.Goal(params_reduction=0.5),
        ...     explore=lrf.ExploreSpec(samples=256),
        ...     finetune=lrf.FinetuneSpec(epochs=1),
        ... )
        >>> result.model.count_params() < model.count_params() / 2
        True
    """
    spec = Spec(
        model="",
        data="",
        seed=seed,
        goal=goal or Goal(),
        explore=explore or ExploreSpec(),
        decompose=decompose or DecomposeSpec(),
        finetune=finetune or FinetuneSpec(),
        gate=gate or GateSpec(),
    )
    steps.check_one_output(model)
    analysis = steps.analyze(spec, model, data)
    space = steps.explore(spec, model, data, analysis)
    prepared = steps.prepare(spec, model, data, space)
    candidates = []
    for number in steps.plan_numbers(spec, space, analysis):
        plan, factorized = prepared.build(number)
        trained, record = stages.finetune(
            factorized, model, data, settings=spec.finetune, seed=seed
        )
        candidates.append(Candidate(plan, record, trained))
    judgement = steps.judge(spec, model, candidates, data)
    return Compression(candidates[judgement.selected].model, analysis, judgement)
