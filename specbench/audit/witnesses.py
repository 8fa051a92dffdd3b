"""Sets of tokens in which the errors of decoders show, and their probability under the target.

A set may depend on everything before a token but not on the token. Errors of parallel decoding
lead towards something known: the draft's law (drafts that are accepted too often), the law of
another position (stale laws, off-by-one caches), tokens copied from the text (retrieved drafts),
or a sharper or flatter law (another temperature, a missing cut). For each of these the set holds
the tokens to which the wrong law gives more than the right one: of all sets it shows a mixture
of the two best. Eight more sets divide the law itself, from likely to unlikely tokens, for errors
that nobody thought of. Errors whose law is known are looked at by that law too
(`specbench.audit.alternatives`).

Shapes: T positions, V vocabulary, S sets, A laws, W shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.audit.alternatives import (
    PLANTED,
    PLANTED_SHARE,
    Context,
    earlier,
    laws_of,
    log_ratios,
)
from specbench.audit.fidelity import logits_by_shape, may_cross, resolution
from specbench.decoding.request import Request
from specbench.law import History, Law, draw
from specbench.models.base import Model, View
from specbench.models.pair import ModelPair

_BINS = 8

NAMES = (
    "tokens that a sharper law prefers",
    "tokens that the draft prefers",
    "tokens that the law one position earlier prefers",
    "tokens that followed the last token before",
    *(f"from likely to unlikely, eighth {number} of 8" for number in range(1, _BINS + 1)),
)
"""What each set holds."""


class Sets(NamedTuple):
    """What is counted and weighed at each position of one generation.

    Attributes:
        hits: [T, S] 1 where the token lies in the set.
        chances: [T, S] probability of the set under the target's law.
        ratios: [T, A, W] logarithm of how much likelier the token is under a known error.
        impossible: What the law forbids and the decoder emitted, in words; else empty.
    """

    hits: Tensor
    chances: Tensor
    ratios: Tensor
    impossible: str = ""


class PromptLaws:
    """The laws along generations of one prompt, computed once by models bound to its law."""

    def __init__(self, models: ModelPair, request: Request, drafts: bool) -> None:
        self.prompt = request.prompt
        self._models = models
        self._law = request.law
        room = len(request.prompt) + request.max_new_tokens
        self._target = _Reader(models.target, request.prompt, room)
        self._draft: _Reader | None = None
        if drafts and models.draft is not None:
            self._draft = _Reader(models.draft, request.prompt, room)

    def score(
        self, tokens: Sequence[int], generator: torch.Generator, planted: bool = False
    ) -> tuple[Sets, list[Sets]]:
        """Return the sets of one generation, and those of the same with errors planted.

        For a planted error three of four tokens behind the first, by chance, are drawn anew from
        the error's law, given the tokens that stand before them.

        Args:
            tokens: The generation; at least one token.
            generator: Splits the tokens that lie on the border of two eighths, and plants.
            planted: Whether to plant the errors of `alternatives.PLANTED`; else there are none.
        """
        logits = self._target.logits(tokens)
        seen = self._seen(tokens)
        target = _normed(self._law.probabilities(logits, seen)[0].double())
        draft = None
        if self._draft is not None:
            draft = self._law.probabilities(self._draft.logits(tokens), seen)[0].double()
        context = Context(target, draft)
        look = _Look(context, self._inside(context, tokens), laws_of(context))
        drawn = torch.tensor(list(tokens), device=target.device)[:, None]
        sets = look.at(drawn, generator)
        errors = []
        for place in PLANTED.values() if planted else ():
            numbers = torch.rand(2, len(tokens), generator=generator, dtype=torch.float64)
            numbers = numbers.to(target.device)
            other = draw(look.laws[place], numbers[0])[:, None]
            kept = numbers[1] >= PLANTED_SHARE
            kept[0] = True
            other = torch.where(kept[:, None], drawn, other)
            errors.append(look.at(other, generator))
        return sets._replace(impossible=self._forbidden(tokens, seen, target, drawn)), errors

    def _inside(self, context: Context, tokens: Sequence[int]) -> Tensor:
        """Return [T, S - 8, V], True at the tokens of each set."""
        target = context.target
        wrong = (
            _normed(target * target),
            target if context.draft is None else context.draft,
            earlier(target),
        )
        return torch.stack([*(law > target for law in wrong), self._copies(tokens, target)], dim=1)

    def _seen(self, tokens: Sequence[int]) -> Tensor | None:
        device = self._models.target.device
        prompt = torch.tensor([self.prompt], device=device)
        history = History(self._law, prompt, self._models.target.vocab_size)
        return history.along(torch.tensor([list(tokens[:-1])], device=device).long(), None)

    def _copies(self, tokens: Sequence[int], laws: Tensor) -> Tensor:
        """Return [T, V], True at tokens that stand behind an earlier copy of the last token."""
        inside = torch.zeros_like(laws, dtype=torch.bool)
        text = [*self.prompt, *tokens]
        for position in range(len(tokens)):
            end = len(self.prompt) + position
            last = text[end - 1]
            copies = [text[i + 1] for i in range(end - 1) if text[i] == last]
            copies = [token for token in copies if token < laws.shape[-1]]  # not a prompt's word
            inside[position, copies] = True
        return inside

    def _forbidden(
        self, tokens: Sequence[int], seen: Tensor | None, laws: Tensor, drawn: Tensor
    ) -> str:
        """Say which token the law gives no probability, rounding at a cut's edge apart."""
        places = (laws.gather(1, drawn)[:, 0] == 0).nonzero()[:, 0].tolist()
        for place in places:
            logits = logits_by_shape(self._models, [*self.prompt, *tokens[:place]])
            before = None if seen is None else seen[:, place]
            least = resolution(self._models, logits)
            if not _at_the_edge(self._law, logits, before, tokens[place], least):
                return f"token {tokens[place]} at position {place + 1} has probability 0"
        return ""


class _Look(NamedTuple):
    """All that is known before the tokens of one generation.

    Attributes:
        context: The laws of target and draft.
        inside: [T, S - 8, V] True at the tokens of each set.
        laws: [A, T, V] law of the token under every known error.
    """

    context: Context
    inside: Tensor
    laws: Tensor

    def at(self, drawn: Tensor, generator: torch.Generator) -> Sets:
        """Return what is counted at some tokens, [T, 1]."""
        target, inside = self.context.target, self.inside
        chances = (target[:, None] * inside).sum(-1)
        hits = inside.gather(2, drawn[:, None].expand(-1, inside.shape[1], -1))[..., 0].double()
        eighths = _eighths(target, drawn, generator)
        return Sets(
            torch.cat([hits.cpu(), eighths], 1),
            torch.cat([chances.cpu(), torch.full_like(eighths, 1 / _BINS)], 1),
            log_ratios(self.laws, target, drawn),
        )


class _Reader:
    """One model's logits behind a prompt that it has read."""

    def __init__(self, model: Model, prompt: Sequence[int], room: int) -> None:
        self._model = model
        self._length = len(prompt)
        self._cache = model.new_cache(1, room)
        fed = torch.tensor([list(prompt)], device=model.device)
        self._first = model.forward(fed, self._cache, View(last=1)).clone()

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Return the logits at the position of every token, [1, T, V]."""
        if len(tokens) == 1:
            return self._first
        self._cache.truncate([self._length])
        fed = torch.tensor([list(tokens[:-1])], device=self._model.device)
        return torch.cat([self._first, self._model.forward(fed, self._cache)], 1)


def _at_the_edge(law: Law, logits: Tensor, seen: Tensor | None, token: int, least: float) -> bool:
    """Say whether rounding may bring a token over the edge of a law's cut.

    Args:
        law: Sampled.
        logits: [N, V] of one place, by forwards of several shapes.
        seen: [1, V] tokens in the text, or None.
        token: It.
        least: What two logits may move even where the shapes agree.
    """
    if bool((law.probabilities(logits, seen)[:, token] > 0).any()):
        return True
    scores = law.penalise(logits, seen)
    if law.top_k is not None and law.top_k < logits.shape[-1]:
        lowest = scores.topk(law.top_k).values[:, -1]
        if may_cross(lowest - scores[:, token], least):
            return True
    if law.top_p is None or law.top_p >= 1:
        return False
    kept = replace(law, top_p=None).probabilities(logits, seen)
    likelier = (kept * (kept > kept[:, token, None])).sum(-1)
    return may_cross(likelier - law.top_p, least / law.temperature)


def _normed(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def _eighths(laws: Tensor, drawn: Tensor, generator: torch.Generator) -> Tensor:
    """Return [T, 8] which eighth of the law each token lies in, the most likely one first.

    A token covers a stretch of the law as long as its probability; a random point of it counts
    (the randomised probability integral transform), so that each eighth has probability 1/8.
    """
    mine = laws.gather(1, drawn)
    above = (laws * (laws > mine)).sum(-1)
    level = (laws * (laws == mine)).sum(-1)
    random = torch.rand(len(laws), generator=generator, dtype=torch.float64)
    points = above.cpu() + random * level.cpu()
    eighth = (points * _BINS).long().clamp(0, _BINS - 1)
    return torch.nn.functional.one_hot(eighth, _BINS).double()
