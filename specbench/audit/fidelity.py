"""Compare a method's greedy output with plain decoding, and say what a difference means.

At temperature 0 a lossless method must emit the tokens of plain decoding. Two forwards of
different shapes add in different orders, so two nearly equal logits may swap. Where two outputs
part, and there alone, the target reads the text in forwards of several shapes. A divergence is a
`tie` where the logits of its two tokens may have swapped: their difference crosses zero between
the shapes, or lies no further from it than twice what it moves. It is `diverged` further away in a
reduced precision, and `wrong` in float32 or wider, where rounding cannot explain it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.cache import Cache
from specbench.law import History, Law
from specbench.models.base import View
from specbench.models.pair import ModelPair

VERSION = 2
"""Of the grades. Version 1 took two tokens for tied whose logits lay within four times the largest
shift of any logit over the whole answer, if they were the two largest."""

_TAIL = 16
"""Tokens before a divergence that are fed in pieces of several sizes."""

_CHUNK = 5

_REACH = 2.0
"""How many times what was seen to move a difference may move it in other forwards. Of 40 places at
which plain decoding and chunks parted in bfloat16 on random models, 39 lay within 1 and all within
2."""


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
        gap: How far the logits of the two tokens lie apart there, on average over the shapes;
            None where identical or where one output is longer.
    """

    grade: Grade
    position: int | None = None
    gap: float | None = None


def worst(verdicts: Sequence[Fidelity]) -> Fidelity:
    """Return the gravest verdict, the first of its kind."""
    return max(verdicts, key=lambda verdict: _ORDER.index(verdict.grade))


def judge(
    models: ModelPair,
    law: Law,
    prompt: Sequence[int],
    reference: Sequence[int],
    output: Sequence[int],
) -> Fidelity:
    """Judge a method's output against plain decoding's."""
    position = first_difference(models, reference, output)
    if isinstance(position, Fidelity):
        return position
    context = [*prompt, *reference[:position]]
    logits = logits_by_shape(models, context)
    scores = law.penalise(logits, seen_before(models, law, context))
    pair = scores[:, [reference[position], output[position]]]
    apart = pair[:, 0] - pair[:, 1]
    tied = may_cross(apart, resolution(models, pair))
    grade = Grade.TIE if tied else severe_grade(models)
    return Fidelity(grade, position, abs(float(apart.mean())))


def severe_grade(models: ModelPair) -> Grade:
    """Return the grade of a difference that no rounding explains, in the target's precision."""
    precise = models.target.dtype in (torch.float32, torch.float64)
    return Grade.WRONG if precise else Grade.DIVERGED


def first_difference(
    models: ModelPair, reference: Sequence[int], output: Sequence[int]
) -> int | Fidelity:
    """Return where two outputs part; the verdict where they are one, or one begins the other."""
    if tuple(reference) == tuple(output):
        return Fidelity(Grade.IDENTICAL)
    shared = zip(reference, output, strict=False)
    place = next((i for i, (a, b) in enumerate(shared) if a != b), None)
    ends = min(len(reference), len(output))
    return Fidelity(severe_grade(models), ends) if place is None else place


def seen_before(models: ModelPair, law: Law, context: Sequence[int]) -> Tensor | None:
    """Return which tokens stand in a text, [1, V], or None where the law does not ask."""
    fed = torch.tensor([list(context)], device=models.target.device)
    return History(law, fed, models.target.vocab_size).now()


def may_cross(values: Tensor, least: float) -> bool:
    """Say whether rounding may bring a quantity to the other side of zero.

    Args:
        values: [N] what forwards of several shapes make of it.
        least: What it may move even where these agree.

    Returns:
        Whether zero lies between the values, or no further from them than twice their spread.
        Differences that are no numbers (one token or both are forbidden) never cross.
    """
    if not bool(values.isfinite().all()):
        return False
    low, high = float(values.min()), float(values.max())
    reach = max(_REACH * (high - low), least)
    return low - reach <= 0 <= high + reach


def resolution(models: ModelPair, logits: Tensor) -> float:
    """Return how far two logits of a size may move apart by being rounded once each."""
    finite = logits[logits.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    return float(torch.finfo(models.target.dtype).eps) * size


def logits_by_shape(models: ModelPair, context: Sequence[int]) -> Tensor:
    """Return the target's logits after a text, computed in forwards of several shapes.

    The whole text is fed at once, as a prompt is. Then its last tokens are fed one by one as plain
    decoding does, in chunks as methods do, all but one at once, and at once; each behind a text
    that was fed whole and one fed in halves.

    Args:
        models: The pair whose target is asked.
        context: Token ids; at least one.

    Returns:
        [N, V], float64.
    """
    tail = min(_TAIL, len(context) - 1)
    root = len(context) - tail
    tails = ([tail], [1] * tail, [tail % _CHUNK, *[_CHUNK] * (tail // _CHUNK)], [tail - 1, 1])
    cache = models.target_cache(len(context))
    found = [_feed(models, cache, context, [len(context)])]
    for head in ([root], [root // 2, root - root // 2]):
        cache.truncate([0])
        _feed(models, cache, context, head)
        for pieces in tails if tail else ():
            cache.truncate([root])
            found.append(_feed(models, cache, context, pieces))
    return torch.stack(found)


def _feed(models: ModelPair, cache: Cache, context: Sequence[int], pieces: Sequence[int]) -> Tensor:
    """Feed the next tokens of a text in pieces; return the last one's logits, [V]."""
    target = models.target
    logits = torch.empty(0)
    for piece in _cut(context[cache.lengths[0] :], pieces):
        fed = torch.tensor([piece], device=target.device)
        logits = target.forward(fed, cache, View(last=1))[0, -1]
    return logits.to(torch.float64, copy=True)  # an engine may write into its own output again


def _cut(tokens: Sequence[int], pieces: Sequence[int]) -> Iterator[list[int]]:
    start = 0
    for size in pieces:
        if size:
            yield list(tokens[start : start + size])
        start += size
