"""ASAp: sampling whose law approaches the target's law of answers that parse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.constraints.base import Constraint, Grammar, Matcher
from specbench.decoding.loops.constrained import Constrained, masked, refuse_greedy
from specbench.decoding.ranges import check_whole
from specbench.decoding.session import Rounds, Session
from specbench.law import History, Law
from specbench.rng import Purpose
from specbench.transfer import read, to_device


@dataclass(slots=True)
class Node:
    """A prefix that was sampled.

    Attributes:
        expected: Upper bound of the probability that the target, left alone, goes on from here
            to an answer that parses (expected future grammaticality).
        children: Longer prefixes by their last token. Those never sampled count as 1.
    """

    expected: float = 1.0
    children: dict[int, Node] = field(default_factory=dict)


class _Step(NamedTuple):
    """One sampled token.

    Attributes:
        token: Its id.
        mass: Its probability under the unmasked target.
        rest: Sum of probability times bound over all other allowed tokens.
    """

    token: int
    mass: float
    rest: float


@dataclass
class _Walk:
    """One sample while it is being drawn.

    Attributes:
        path: The nodes so far, the root first.
        steps: The tokens so far.
        matcher: Where the grammar stands.
        history: The tokens so far, for laws that look at them.
    """

    path: list[Node]
    steps: list[_Step]
    matcher: Matcher
    history: History


class ASAp(Constrained):
    """Adaptive sampling with approximate expected futures (Park et al. 2024, arXiv:2405.21047).

    Masking tokens lets a sampler walk into prefixes from which the target would hardly ever
    reach a valid answer. ASAp keeps a trie of the prefixes that it has sampled for a prompt.
    Each holds an upper bound of the probability that the target's own continuation parses: 1
    where it has not been, and after each sample, from its end upward, the sum over allowed
    tokens of probability times the bound behind them. Tokens are drawn in proportion to that
    product. The first sample has the law of grammar-constrained decoding; with more of them the
    law converges to the target's, conditioned on the grammar. That law is the run's at every
    temperature; the release multiplies bounds with probabilities at temperature 1 and applies the
    run's temperature to the product, which is the same at temperature 1, where its scripts run.

    A generation draws `iterations` samples and emits the last one. The trie begins empty for
    every request, and all samples are timed; the ledger books the earlier ones in the first
    round, because they precede the first token. Probabilities in the bounds are those of the
    unmasked law, as in github.com/ebmoon/transformers-GAD (oracle/oracle_trie.py and
    generation/logits_process.py). As there, the bound of a sample that the length limit cuts
    stays 1 at its end. Where the product is 0 for every allowed token, which only a truncated
    law or an underflow can cause, the token is drawn from the allowed ones alone, and the bound
    of that prefix becomes 0.

    Args:
        grammar: As for `Constrained`; None is plain decoding.
        iterations: Samples for each request, one or more; 1 has the law of grammar-constrained
            decoding.

    Raises:
        ConfigError: If iterations is less than one, or the grammar is refused.
    """

    def __init__(self, grammar: str | Grammar | None, iterations: int) -> None:
        super().__init__(grammar)
        check_whole("iterations", iterations, 1)
        self._iterations = int(iterations)

    def check(self, law: Law) -> None:
        """Refuse temperature 0.

        Raises:
            ConfigError: If the law is greedy.
        """
        refuse_greedy(law, "ASAp")

    def rounds(self, session: Session) -> Rounds:
        """Draw the samples that are not emitted, then emit the last one token by token."""
        if self._constraint is None:
            yield from super().rounds(session)
            return
        sampler = _Sampler(session, self._constraint)
        for index in range(1, self._iterations):
            sampler.discarded(index)
        yield from sampler.emitted()


class _Sampler:
    """The samples of one request, over one cached prompt and one trie.

    Args:
        session: The request.
        constraint: What answers must obey.
    """

    def __init__(self, session: Session, constraint: Constraint) -> None:
        self._session = session
        self._constraint = constraint
        self._first = session.feed(session.prompt, last=1)[:, -1]
        self._root = Node()

    def discarded(self, index: int) -> None:
        """Draw a sample for what the trie learns of it.

        Args:
            index: Which sample, from 1.
        """
        walk, tokens, request = self.walk(), list[int](), self._session.request
        while True:
            position = len(request.prompt) + len(tokens)
            uniform = request.streams.uniform(position, Purpose.DRAFT, index)
            tokens.append(self.sample(walk, uniform))
            ended = request.stop.find(tokens, len(tokens) - 1)
            if ended or len(tokens) == request.max_new_tokens:
                break
        self._learn(walk)

    def emitted(self) -> Rounds:
        """Draw the last sample, a token a round."""
        session, walk = self._session, self.walk()
        while True:
            number = session.request.streams.uniform(len(session.committed), Purpose.SAMPLE)
            session.committed.append(self.sample(walk, number))
            yield session.close()

    def walk(self) -> _Walk:
        """Return to the end of the prompt."""
        session = self._session
        session.target.cache.truncate([len(session.request.prompt)])
        history = History(session.request.law, session.prompt, session.models.target.vocab_size)
        return _Walk([self._root], [], self._constraint.start(), history)

    def sample(self, walk: _Walk, uniform: float) -> int:
        """Feed the last token of a sample, draw the next one, and return it."""
        logits = self._first
        if walk.steps:
            last = to_device([[walk.steps[-1].token]], logits.device)
            walk.history.commit(last)
            self._session.clock.lap(Segment.SAMPLING)
            logits = self._session.feed(last, last=1)[:, -1]
            walk.matcher.advance(walk.steps[-1].token)
        step = self._draw(walk, logits, uniform)
        walk.steps.append(step)
        walk.path.append(walk.path[-1].children.setdefault(step.token, Node()))
        return step.token

    def _draw(self, walk: _Walk, logits: Tensor, uniform: float) -> _Step:
        """Draw a token in proportion to its probability times its bound."""
        law, seen, node = self._session.request.law, walk.history.now(), walk.path[-1]
        probabilities = law.probabilities(logits, seen)
        weights = probabilities.double() * walk.matcher.allowed()
        known = {token: child for token, child in node.children.items() if child.expected < 1}
        if known:
            bounds = [child.expected for child in known.values()]
            ids = to_device([*known], weights.device)
            weights[:, ids] *= to_device(bounds, weights.device, torch.float64)
        choices = self._session.request.choices
        token = choices.draw(weights, uniform)
        step = self._step(token, probabilities, weights)
        if step.rest > 0 or weights[0, step.token] > 0:
            return step
        allowed = law.probabilities(masked(logits, walk.matcher), seen)
        return self._step(choices.draw(allowed, uniform), probabilities, weights)

    def _step(self, token: Tensor, probabilities: Tensor, weights: Tensor) -> _Step:
        """Bring a drawn token and what its backup needs to the host, in one transfer."""
        place = token[:, None]
        mass = probabilities.gather(-1, place).double()
        rest = weights.scatter(-1, place, 0.0).sum(-1, keepdim=True, dtype=torch.float64)
        chosen, likely, others = read(torch.cat((place.double(), mass, rest), -1)[0])
        return _Step(int(chosen), likely, others)

    def _learn(self, walk: _Walk) -> None:
        """Recompute the bounds along a finished sample, from its end upward."""
        for place in range(len(walk.steps) - 1, -1, -1):
            step, child = walk.steps[place], walk.path[place + 1]
            walk.path[place].expected = step.rest + step.mass * child.expected
