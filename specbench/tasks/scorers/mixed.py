"""The scorer of a mixed task: each category keeps its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specbench.tasks.base import Sample, Score, Scorer


class ByCategory:
    """Hands each sample to the scorer of its category.

    Args:
        scorers: A scorer, or None, for every category.
    """

    name = "by_category"

    def __init__(self, scorers: Mapping[str, Scorer | None]) -> None:
        self._scorers = dict(scorers)

    @property
    def version(self) -> int:
        """The sum of the scorers' versions: it moves when any of them moves."""
        return sum(scorer.version for scorer in self._scorers.values() if scorer is not None)

    def for_sample(self, sample: Sample) -> Scorer | None:
        """Return the scorer of the sample's category."""
        return self._scorers.get(sample.category)

    def score(self, sample: Sample, answers: Sequence[str]) -> Score:
        """Score by the category's own scorer."""
        scorer = self.for_sample(sample)
        if scorer is None:
            return Score(None, "this category has no scorer")
        return scorer.score(sample, answers)
