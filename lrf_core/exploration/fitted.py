"""Plans as they will be built: their factors, and a model that answers like any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import keras

from lrf_core.artifacts import Candidate
from lrf_core.exploration.factorize import Factorizer, Fitted
from lrf_core.exploration.refit import Refit
from lrf_core.exploration.verify import Scores
from lrf_core.models.splice import splice


class FittedPlans:
    """The factors of one plan after the other, refitted or not, as the settings say.

    What is tried is what is built: a refit wins back most of what a plan loses.

    Args:
        factorizer: of all layers that a plan may replace.
        scores: checks what plans are made of.
        refit: makes what refits plans; None if factors stay as they were fitted layer by layer.
    """

    def __init__(
        self,
        model: keras.Model,
        factorizer: Factorizer,
        scores: Scores,
        refit: Callable[[], Refit] | None,
    ) -> None:
        self._model = model
        self._factorizer = factorizer
        self._scores = scores
        self._make_refit = refit
        # Of the last plan alone: factors take about the memory of the model.
        self._fitted: dict[Candidate, Fitted] = {}
        self._built: tuple[tuple[Candidate, ...], dict[Candidate, Fitted]] | None = None

    def factorized(self, candidates: Sequence[Candidate]) -> keras.Model:
        """The model with the chains of a plan in place.

        Args:
            candidates: one per layer replaced, in the order of the model's layers.

        Raises:
            ArtifactError: the factors do not cost or answer what the candidates say.
        """
        return self._factorizer.factorized(self._factors(candidates))

    def answering(self, candidates: Sequence[Candidate]) -> keras.Model:
        """A model of the original's layers that answers as the plan will, until the next call.

        Raises ArtifactError, as `factorized` does.
        """
        self._factorizer.assign_kernels(self._copy, self._factors(candidates))
        return self._copy

    def _factors(self, candidates: Sequence[Candidate]) -> dict[Candidate, Fitted]:
        wanted = tuple(candidates)
        if self._built is None or self._built[0] != wanted:
            self._built = None
            known = {each: self._fitted[each] for each in wanted if each in self._fitted}
            new = [each for each in wanted if each not in known]
            self._scores.check_costs(new)
            known |= self._factorizer.fit(new, self._scores.check)
            self._fitted = {each: known[each] for each in wanted}
            refit = self._refit
            self._built = wanted, refit.in_order(self._fitted) if refit else self._fitted
        return self._built[1]

    @cached_property
    def _refit(self) -> Refit | None:
        return self._make_refit() if self._make_refit else None

    @cached_property
    def _copy(self) -> keras.Model:
        # One for all: TensorFlow compiles it once.
        return splice(self._model, {})
