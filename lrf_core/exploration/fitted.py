"""Plans as they will be built: their factors, and a model that answers like any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import keras

from lrf_core.artifacts import Candidate
from lrf_core.exploration.factorize import Factorizer
from lrf_core.exploration.refit import Refit
from lrf_core.exploration.verify import Scores
from lrf_core.models.splice import splice


class FittedPlans:
    """The factors of one plan after the other, refitted or not, as the settings say.

    What is tried is what is built: a refit wins back most of what a plan loses.

    Args:
        factorizer: of all layers that a plan may replace; it is not changed.
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
        # The last plan alone: second moments of all its layers are kept with its factors.
        self._last: tuple[tuple[Candidate, ...], Factorizer] | None = None

    def factorizer(self, candidates: Sequence[Candidate]) -> Factorizer:
        """With the factors of a plan.

        Args:
            candidates: one per layer replaced, in the order of the model's layers.

        Raises:
            ArtifactError: the factors do not cost or answer what the candidates say.
        """
        wanted = tuple(candidates)
        if self._last is None or self._last[0] != wanted:
            self._scores.check(wanted)
            fitted = self._factorizer.copy()
            if self._refit:
                self._refit.in_order(fitted, wanted)
            self._last = wanted, fitted
        return self._last[1]

    def answering(self, candidates: Sequence[Candidate]) -> keras.Model:
        """A model of the original's layers that answers as the plan will, until the next call."""
        self.factorizer(candidates).assign_kernels(self._copy, candidates)
        return self._copy

    @cached_property
    def _refit(self) -> Refit | None:
        return self._make_refit() if self._make_refit else None

    @cached_property
    def _copy(self) -> keras.Model:
        # One for all: TensorFlow compiles it once.
        return splice(self._model, {})
