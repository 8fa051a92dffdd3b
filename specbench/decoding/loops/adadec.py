"""AdaDec: greedy decoding that looks ahead where it is uncertain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.loops.branches import parallel_chains
from specbench.decoding.loops.scoring import entropy, ranked, refuse_sampling, widened
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class _Decision(NamedTuple):
    """What a look ahead decided.

    Attributes:
        tokens: The chosen candidate and the part of its rollout that needs no decision.
        logits: Law of the token after them, [1, V]; None where the last one was not fed.
    """

    tokens: list[int]
    logits: Tensor | None


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

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots that the rollouts need."""
        return self._candidates * self._rollout

    def rounds(self, session: Session) -> Rounds:
        """Emit a token, or a candidate with the part of its rollout that needs no decision."""
        target = session.target
        logits: Tensor | None = None
        while True:
            fed = session.committed[target.cache.lengths[0] :]
            if fed:
                logits = session.feed(to_device([fed], target.model.device), last=1)[:, -1]
            assert logits is not None
            decision = self._decide(session, logits)
            logits = decision.logits
            session.commit(decision.tokens)
            if logits is None:
                session.check_cache()
            yield session.close()

    def _decide(self, session: Session, logits: Tensor) -> _Decision:
        """Choose the next token behind the cached text from its law."""
        logits = session.request.law.penalise(widened(logits), session.target.history.now())
        ids = ranked(logits, self._candidates)
        nats = entropy(logits.softmax(-1))
        best, uncertainty = session.read(torch.cat((ids[0, :1].double(), nats.double())))
        depth = min(self._rollout, session.models.context - session.target.cache.lengths[0])
        if uncertainty < self._tau or ids.shape[1] == 1 or depth < 1:
            return _Decision([int(best)], None)
        return self._look_ahead(session, logits, ids, depth)

    def _look_ahead(self, session: Session, logits: Tensor, ids: Tensor, depth: int) -> _Decision:
        """Roll every candidate out and keep the best."""
        law, target, cache = session.request.law, session.target, session.target.cache
        count, base = ids.shape[1], cache.lengths[0]
        seen = target.history.now()
        paths = None if seen is None else seen.repeat(count, 1)
        tokens = ids[0]
        likelihood = logits.log_softmax(-1)[0, tokens]
        steps = [_record(tokens, likelihood, torch.zeros_like(likelihood))]
        laws = []
        for mask in parallel_chains(count, depth, target.model.device):
            session.clock.lap(Segment.SAMPLING)
            following = session.feed(tokens[None], mask)[0]
            laws.append(following)
            if paths is not None:
                paths = paths.scatter(1, tokens[:, None], True)
            scores = law.penalise(widened(following), paths).log_softmax(-1)
            likelihood, tokens = scores.amax(-1), scores.argmax(-1)
            steps.append(_record(tokens, likelihood, entropy(scores.exp())))
        rolled = session.read(torch.stack(steps, -1))
        place, length = self._best(session, *rolled)
        chosen = [int(token) for token in rolled[0][place][:length]]
        cached = min(length, depth)
        cache.keep([base], [[step * count + place for step in range(cached)]])
        pending = laws[length - 1][place : place + 1] if length <= depth else None
        return _Decision(chosen, pending)

    def _best(
        self,
        session: Session,
        tokens: list[list[float]],
        likelihoods: list[list[float]],
        entropies: list[list[float]],
    ) -> tuple[int, int]:
        """Return the best candidate, and how many tokens of its rollout need no decision."""
        emitted = session.answer
        scores, ends = [], []
        for path, logs in zip(tokens, likelihoods, strict=True):
            whole = emitted + [int(token) for token in path]
            cut = session.request.stop.find(whole, len(emitted))
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
