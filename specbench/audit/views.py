"""What is looked at in sampled outputs: the first tokens, the last ones, and every transition.

The law of the first tokens is known by enumeration. That of late ones is known where the target
looks back a few tokens: the law of these few is carried from position to position. Every step of
a long text is then one more draw from a known row of the target's table, wherever it stands.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from specbench.audit.chi_square import Cells, Goodness, cells_of, goodness, noncentrality, power
from specbench.audit.enumeration import Mix, Tokens, next_law, true_law
from specbench.audit.tables import Case
from specbench.models.pair import ModelPair

UNVERIFIED = 0.1
"""The bias that powers are stated for: one token in ten is the draft's own, never verified."""

_WIDTH = 3


@dataclass(frozen=True)
class Statistic:
    """One statistic of a case's outputs, and its law.

    Attributes:
        name: "first tokens", "last tokens", "transitions" or "whole answers".
        law: The target's law of it.
        biased: Its law where one token in ten is the draft's.
        steps: Outcomes that one generation gives.
        memory: For transitions, how many tokens come before the one that is drawn; else 0.
    """

    name: str
    law: Mapping[Tokens, float]
    biased: Mapping[Tokens, float]
    steps: int = 1
    memory: int = 0

    def cells(self, generations: int) -> Cells[Tokens]:
        """Return the cells for a number of generations."""
        return cells_of(self.law, generations * self.steps, lambda key: key[: self.memory])

    def test(self, case: Case, outputs: Iterable[Tokens], generations: int) -> Goodness:
        """Test outputs of a case."""
        counts: Counter[Tokens] = Counter()
        for tokens in outputs:
            counts.update(self._outcomes(case, tokens))
        return goodness(counts, self.cells(generations))

    def power(self, generations: int, stage: float) -> float:
        """Return the probability that the stated bias would be found."""
        cells = self.cells(generations)
        shift = noncentrality(self.law, self.biased, cells)
        return power(shift, cells.freedom, generations * self.steps, stage)

    def _outcomes(self, case: Case, tokens: Tokens) -> list[Tokens]:
        if self.name == "first tokens":
            return [tokens[:_WIDTH]]
        if self.name == "last tokens":
            # an answer of another length is no outcome at all, and is found for certain
            return [tokens[-_WIDTH:] if len(tokens) == case.count else tokens]
        if self.name == "transitions":
            text = (*case.prompt, *tokens)
            ends = range(len(case.prompt), len(text))
            return [text[end - self.memory : end + 1] for end in ends]
        return [tokens]


def views_of(case: Case, models: ModelPair) -> list[Statistic]:
    """Return what is tested of a case."""
    mix = unverified(case, models)
    if not case.memory:
        law, biased = (
            true_law(models, case.law, case.prompt, case.count, case.stop, change)
            for change in (None, mix)
        )
        return [Statistic("whole answers", law, biased)]
    assert not case.law.needs_history and not case.stop
    first, biased_first = (
        true_law(models, case.law, case.prompt, _WIDTH, mix=change) for change in (None, mix)
    )
    (moves, last), (biased_moves, biased_last) = (
        _carried(case, models, change) for change in (None, mix)
    )
    return [
        Statistic("first tokens", first, biased_first),
        Statistic("last tokens", last, biased_last),
        Statistic("transitions", moves, biased_moves, case.count, case.memory),
    ]


def unverified(case: Case, models: ModelPair) -> Mix:
    """Return the bias that powers are stated for."""
    assert models.draft is not None
    draft = models.draft

    def mix(context: Tokens, law: list[float]) -> list[float]:
        proposed = next_law(draft, case.draft_law or case.law, context)
        return [(1 - UNVERIFIED) * p + UNVERIFIED * q for p, q in zip(law, proposed, strict=True)]

    return mix


def _carried(
    case: Case, models: ModelPair, mix: Mix | None
) -> tuple[dict[Tokens, float], dict[Tokens, float]]:
    """Return the law of all transitions together, and that of the last tokens."""
    kept = max(case.memory, _WIDTH)
    rows: dict[Tokens, list[float]] = {}
    moves: dict[Tokens, float] = defaultdict(float)
    places: dict[Tokens, float] = {case.prompt[-kept:]: 1.0}
    for _ in range(case.count):
        following: dict[Tokens, float] = defaultdict(float)
        for text, weight in places.items():
            context = text[-case.memory :]
            if context not in rows:
                row = next_law(models.target, case.law, context)
                rows[context] = mix(context, row) if mix else row
            for token, p in enumerate(rows[context]):
                if p > 0:
                    moves[*context, token] += weight * p / case.count
                    following[(*text, token)[-kept:]] += weight * p
        places = following
    last: dict[Tokens, float] = defaultdict(float)
    for text, weight in places.items():
        last[text[-_WIDTH:]] += weight
    return dict(moves), dict(last)
