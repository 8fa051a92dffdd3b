"""Compare a method's greedy output with plain decoding, and say what a difference means.

At temperature 0 a lossless method must emit the tokens of plain decoding. Two forwards of
different shapes add in different orders, so two nearly equal logits may swap. A divergence is a
`tie` when the target's top-2 logit gap there lies under a bound that was measured on this model,
machine and dtype; it is `diverged` above the bound in a reduced precision, and `wrong` above it
in float32 or wider, where rounding cannot explain it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch

from specbench.law import History, Law
from specbench.models.pair import ModelPair

_CHUNK = 5
_LONG = 60
"""Tokens of a long piece; a multiple of the short ones, so that pieces end together."""

_SAFETY = 4.0


class Grade(StrEnum):
    """How a method's tokens relate to plain decoding's."""

    IDENTICAL = "identical"
    TIE = "tie"
    DIVERGED = "diverged"
    WRONG = "wrong"


_ORDER = list(Grade)


class Fidelity(NamedTuple):
    """The verdict on one output.

    Attributes:
        grade: The verdict.
        position: Output position of the first divergence; None where identical.
        gap: The target's top-2 logit gap there; None where identical.
    """

    grade: Grade
    position: int | None = None
    gap: float | None = None


def worst(verdicts: Sequence[Fidelity]) -> Fidelity:
    """Return the gravest verdict, the first of its kind."""
    return max(verdicts, key=lambda verdict: _ORDER.index(verdict.grade))


def numeric_bound(models: ModelPair, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Measure how far the shape of a forward alone moves a logit.

    The same text is scored in long pieces, token by token, and in short chunks. Two shapes run
    side by side and only the largest difference is kept, so that the memory does not grow with
    the answer beyond two caches.

    Args:
        models: The pair whose target is measured.
        prompt: Token ids.
        answer: Token ids that follow it.

    Returns:
        A bound on the top-2 gap below which two logits may swap: four times the largest
        difference seen.
    """
    return _SAFETY * max(_shift(models, prompt, answer, size) for size in (1, _CHUNK))


def judge(
    models: ModelPair,
    law: Law,
    prompt: Sequence[int],
    reference: Sequence[int],
    output: Sequence[int],
    bound: float,
) -> Fidelity:
    """Judge a method's output against plain decoding's.

    Args:
        models: The pair that made both.
        law: The target's law, greedy.
        prompt: Token ids.
        reference: Plain decoding's tokens.
        output: The method's tokens.
        bound: From `numeric_bound`.
    """
    if tuple(reference) == tuple(output):
        return Fidelity(Grade.IDENTICAL)
    shared = zip(reference, output, strict=False)
    position = next((i for i, (a, b) in enumerate(shared) if a != b), None)
    precise = models.target.dtype in (torch.float32, torch.float64)
    severe = Grade.WRONG if precise else Grade.DIVERGED
    if position is None:
        return Fidelity(severe, min(len(reference), len(output)))
    context = [*prompt, *reference[:position]]
    logits = _wide(target_logits(models, context))[0]
    history = History(law, torch.tensor([context], device=logits.device), logits.shape[-1])
    seen = history.now()
    scores = law.penalise(logits, None if seen is None else seen[0])
    top = scores.topk(2)
    gap = float(top.values[0] - top.values[1])
    pair = {reference[position], output[position]}
    tied = gap <= bound and pair == set(top.indices.tolist())
    return Fidelity(Grade.TIE if tied else severe, position, gap)


def target_logits(models: ModelPair, context: Sequence[int]) -> torch.Tensor:
    """Return the target's logits after a text, [1, V]."""
    fed = torch.tensor([list(context)], device=models.target.device)
    return models.target.forward(fed, models.target_cache(len(context)), last=1)[:, -1]


def _shift(models: ModelPair, prompt: Sequence[int], answer: Sequence[int], size: int) -> float:
    """Return the largest difference of a logit between pieces of `size` and long pieces."""
    target = models.target
    capacity = len(prompt) + len(answer)
    long, short = models.target_cache(capacity), target.new_cache(1, capacity)
    fed = torch.tensor([list(prompt)], device=target.device)
    for cache in (long, short):
        target.forward(fed, cache, last=1)
    largest = torch.zeros((), device=target.device, dtype=torch.float64)
    tokens = torch.tensor([list(answer)], device=target.device)
    for start in range(0, len(answer), _LONG):
        piece = tokens[:, start : start + _LONG]
        expected = target.forward(piece, long)
        for first in range(0, piece.shape[1], size):
            got = _wide(target.forward(piece[:, first : first + size], short))
            apart = got - _wide(expected[:, first : first + size])
            # forbidden ids are minus infinity in both, and their difference is no number
            largest = largest.maximum(apart.abs().nan_to_num(0.0).max())
    return float(largest)


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
