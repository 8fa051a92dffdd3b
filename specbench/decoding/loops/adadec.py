"""AdaDec: greedy decoding that looks ahead where it is uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.cache import Cache
from specbench.clock import Clock, Segment
from specbench.decoding.base import Decoder, Tally, check_cache, room
from specbench.decoding.ledger import Count, Generation
from specbench.decoding.loops.branches import parallel_chains
from specbench.decoding.loops.scoring import (
    emit,
    entropy,
    ranked,
    refuse_sampling,
    widened,
)
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.reading import read
from specbench.decoding.request import Request
from specbench.law import History, Law
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class _Decision(NamedTuple):
    """What a look ahead decided.

    Attributes:
        tokens: The chosen candidate and the part of its rollout that needs no decision.
        logits: Law of the token after them, [1, V]; None where the last one was not fed.
        forwards: Target forwards that were spent.
        fed: Tokens that were fed.
    """

    tokens: list[int]
    logits: Tensor | None
    forwards: int
    fed: int


@dataclass
class _Search:
    """One request while it is being decoded."""

    models: ModelPair
    request: Request
    clock: Clock
    cache: Cache
    history: History
    tally: Tally


class AdaDec(Decoder):
    """AdaDec (He et al. 2025, arXiv:2506.08980).

    Where the entropy of the next token reaches `tau`, each of the `candidates` most probable
    tokens is continued greedily for up to `rollout` tokens, and the candidate of largest mean
    log-probability, its own and its rollout's, is taken; elsewhere the most probable token is.
    A rollout ends early where the answer would end: the release ends it with the function that
    is being written, here the request's own stop rule says so. Entropy (nats) and
    log-probabilities are those at temperature 1 (after the repetition penalty, where the run
    sets one). Source: github.com/SYSUSELab/AdaDec, llm/generator.py; there the log-probabilities
    of tokens behind the end of a rollout still count in the sum, here they do not.

    All rollouts share one cached prefix as side-by-side branches and are forgotten afterwards.
    The chosen rollout is the greedy continuation itself, so its tokens are kept as far as their
    entropies lie below `tau`: the output is the same as if they were decoded again.

    Args:
        tau: Threshold of the entropy in nats; infinity is greedy decoding.
        candidates: Tokens that are compared (B in the paper); 1 is greedy decoding.
        rollout: Tokens of look-ahead (L in the paper); 0 is greedy decoding.

    Raises:
        ConfigError: If tau or rollout is negative, or candidates is less than one.
    """

    needs = frozenset({"tree_mask"})

    def __init__(self, tau: float, candidates: int = 3, rollout: int = 5) -> None:
        check_number("tau", tau, 0)
        check_whole("candidates", candidates, 1)
        check_whole("rollout", rollout, 0)
        self._tau = tau
        self._candidates = candidates
        self._rollout = rollout

    def check(self, law: Law) -> None:
        """Refuse a sampled law.

        Raises:
            ConfigError: If the temperature is above zero.
        """
        refuse_sampling(law, "AdaDec")

    def generate(self, models: ModelPair, request: Request, clock: Clock) -> Generation:
        """Continue one prompt."""
        target = models.target
        capacity = room(models, request, self._candidates * self._rollout)
        clock.start()
        cache = models.target_cache(capacity)
        prompt = to_device([request.prompt], target.device)
        history = History(request.law, prompt, target.vocab_size)
        search = _Search(models, request, clock, cache, history, Tally(request, clock))
        committed = list(request.prompt)
        logits: Tensor | None = None
        while search.tally.cut is None:
            fed = committed[cache.lengths[0] :]
            if fed:
                new = to_device([fed], target.device)
                logits = target.forward(new, cache, last=1)[:, -1]
                clock.lap(Segment.TARGET)
            assert logits is not None
            decision = self._decide(search, logits)
            logits = decision.logits
            history.commit(to_device([decision.tokens], target.device))
            committed += decision.tokens
            forwards, count = bool(fed) + decision.forwards, len(fed) + decision.fed
            if logits is None:
                check_cache(cache, committed)
            emit(
                search.tally,
                decision.tokens,
                Count(0, 0, len(decision.tokens), 0, forwards, count),
            )
        return search.tally.finish()

    def _decide(self, search: _Search, logits: Tensor) -> _Decision:
        """Choose the next token behind the cached text from its law."""
        logits = search.request.law.penalise(widened(logits), search.history.now())
        ids = ranked(logits, self._candidates)
        nats = entropy(logits.softmax(-1))
        best, uncertainty = read(torch.cat((ids[0, :1].double(), nats.double())), search.clock)
        depth = min(self._rollout, search.models.context - search.cache.lengths[0])
        if uncertainty < self._tau or ids.shape[1] == 1 or depth < 1:
            return _Decision([int(best)], None, 0, 0)
        return self._look_ahead(search, logits, ids, depth)

    def _look_ahead(self, search: _Search, logits: Tensor, ids: Tensor, depth: int) -> _Decision:
        """Roll every candidate out and keep the best."""
        law, target, cache = search.request.law, search.models.target, search.cache
        count, base = ids.shape[1], cache.lengths[0]
        seen = search.history.now()
        paths = None if seen is None else seen.repeat(count, 1)
        tokens = ids[0]
        likelihood = logits.log_softmax(-1)[0, tokens]
        steps = [_record(tokens, likelihood, torch.zeros_like(likelihood))]
        laws = []
        for mask in parallel_chains(count, depth, target.device):
            search.clock.lap(Segment.SAMPLING)
            following = target.forward(tokens[None], cache, mask=mask)[0]
            search.clock.lap(Segment.TARGET)
            laws.append(following)
            if paths is not None:
                paths = paths.scatter(1, tokens[:, None], True)
            scores = law.penalise(widened(following), paths).log_softmax(-1)
            likelihood, tokens = scores.amax(-1), scores.argmax(-1)
            steps.append(_record(tokens, likelihood, entropy(scores.exp())))
        rolled = read(torch.stack(steps, -1), search.clock)
        place, length = self._best(search, *rolled)
        chosen = [int(token) for token in rolled[0][place][:length]]
        cached = min(length, depth)
        cache.keep([base], [[step * count + place for step in range(cached)]])
        pending = laws[length - 1][place : place + 1] if length <= depth else None
        return _Decision(chosen, pending, depth, depth * count)

    def _best(
        self,
        search: _Search,
        tokens: list[list[float]],
        likelihoods: list[list[float]],
        entropies: list[list[float]],
    ) -> tuple[int, int]:
        """Return the best candidate, and how many tokens of its rollout need no decision."""
        emitted = search.tally.tokens
        scores, ends = [], []
        for path, logs in zip(tokens, likelihoods, strict=True):
            whole = emitted + [int(token) for token in path]
            cut = search.request.stop.find(whole, len(emitted))
            end = cut.length - len(emitted) if cut else len(path)
            ends.append(end)
            scores.append(sum(logs[:end]) / end)
        best = scores.index(max(scores))
        length = 1
        while length < ends[best] and entropies[best][length] < self._tau:
            length += 1
        return best, length


def _record(tokens: Tensor, likelihood: Tensor, nats: Tensor) -> Tensor:
    """Return what one step of all rollouts leaves for the decision, [3, B] float64."""
    return torch.stack((tokens.double(), likelihood.double(), nats.double()))
