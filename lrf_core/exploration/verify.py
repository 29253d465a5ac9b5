"""Scores that a plan rests on, computed again from the model and the calibration samples.

A design space, and the cache of scores that it is made from, are files that others may write, with
no key to sign them. What is chosen from them is therefore not believed: one evaluation in closed
form per candidate tells whether cost and scores are those of its factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras

from lrf_core.artifacts import Candidate, DesignSpace
from lrf_core.errors import ArtifactError, SpecError
from lrf_core.exploration.factorize import Factorizer
from lrf_core.exploration.feature_map import FeatureMap, feature_maps
from lrf_core.exploration.score import Judge
from lrf_core.methods import Decomposition
from lrf_core.models.trace import walk

# As shares of the score, and of the score of a layer that answers nothing. Another processor rounds
# otherwise, and may draw another label of a sample between two classes: closed forms stay within
# 1e-6 of their score, but fits that go step by step (CP, T3F) were seen 6% apart.
_RELATIVE, _ABSOLUTE = 0.3, 1e-3


class Scores:
    """Checks candidates of a design space.

    Args:
        factorizer: of all layers that a candidate may be of; its moments are those of `space`.
        similarity: name of the metric that the design space was made with.
    """

    def __init__(self, model: keras.Model, factorizer: Factorizer, similarity: str) -> None:
        self._layers = {path: layer for path, layer in walk(model) if path in factorizer.records}
        self._maps: Mapping[str, FeatureMap] = feature_maps(model, self._layers)
        self._factorizer = factorizer
        self._similarity = similarity

    def check_costs(self, candidates: Sequence[Candidate]) -> None:
        """Raise ArtifactError unless ranks and costs of candidates are what they are said to be."""
        for candidate in candidates:
            try:
                layout = self._factorizer.layout(candidate)
                layout.check_ranks(candidate.ranks)
            except SpecError as error:
                raise ArtifactError(f"{_where(candidate)}: {error}; {_ADVICE}") from None
            cost = layout.cost(candidate.ranks)
            _compare(candidate, "parameters", candidate.cost.params, cost.params)
            _compare(candidate, "multiply-adds", candidate.cost.macs, cost.macs)

    def check(self, candidate: Candidate, decomposition: Decomposition) -> None:
        """Raise ArtifactError unless the scores of a candidate are what they are said to be.

        Args:
            sweep: the decomposition that the candidate is a truncation of.
        """
        path = candidate.layer
        record = self._factorizer.records[path]
        judge = Judge.of(
            record, self._layers[path], decomposition.moments, self._similarity, self._maps[path]
        )
        output_error, sensitivity = judge.errors(decomposition, candidate.ranks)
        similarity = judge.similarity(decomposition.outputs(candidate.ranks)[:: judge.every])
        _compare(candidate, "error", candidate.error, output_error, 1.0)
        _compare(candidate, "sensitivity", candidate.sensitivity, sensitivity, judge.worst_loss)
        _compare(candidate, "dissimilarity", 1 - candidate.similarity, 1 - similarity, 1.0)


_ADVICE = (
    f"{DesignSpace.file_name} or the cache of scores that it was made from (explore.cache) was "
    "altered, or is of another version: delete both and run explore again"
)


def _where(candidate: Candidate) -> str:
    return (
        f"{DesignSpace.file_name}: layer '{candidate.layer}' by {candidate.technique} with ranks "
        f"{', '.join(map(str, candidate.ranks))}"
    )


def _compare(
    candidate: Candidate, what: str, stated: float, found: float, scale: float = 0.0
) -> None:
    """Raise ArtifactError unless a number is the one found, up to rounding.

    Args:
        scale: the number for a layer that answers nothing; 0 for numbers that are exact.
    """
    relative = _RELATIVE if scale else 0.0
    if not math.isclose(stated, found, rel_tol=relative, abs_tol=_ABSOLUTE * scale):
        raise ArtifactError(
            f"{_where(candidate)} has {what} {stated:.6g} there, and {found:.6g} by its "
            f"factors; {_ADVICE}"
        )
