"""Adaptive weighted rejection sampling with sequential Monte Carlo."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.constraints.base import DeadEnd, Grammar, Matcher
from specbench.decoding.constraints.rejection import (
    Estimate,
    Numbers,
    estimate,
    needed_orders,
    orders,
)
from specbench.decoding.loops.branches import Branches
from specbench.decoding.loops.constrained import Constrained, refuse_greedy
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import read, to_device


@dataclass
class Particle:
    """One weighted answer.

    Attributes:
        matcher: Where the constraint stands.
        branch: Where its tokens but the last lie in the cache.
        tokens: The answer so far.
        weight: Logarithm of its weight; minus infinity where no token could follow.
        finished: Whether the answer is complete.
    """

    matcher: Matcher
    branch: int = 0
    tokens: list[int] = field(default_factory=list)
    weight: float = 0.0
    finished: bool = False

    def copy(self) -> Particle:
        """Return an independent particle that stands at the same place."""
        return Particle(
            self.matcher.clone(), self.branch, list(self.tokens), self.weight, self.finished
        )


class AdaptiveRejection(Constrained):
    """Adaptive weighted rejection sampling (Lipkin et al. 2025, arXiv:2504.05410).

    Several weighted answers, the particles, grow side by side. In each step every particle draws
    a token by rejection: tokens come in the order of draws without replacement and are tested
    one by one, so that no mask is computed; the estimate of the allowed mass multiplies its
    weight, which thereby corrects for what masking distorts (`constraints.rejection`). When the
    effective sample size falls below a share of the number of particles, they are resampled in
    proportion to their weights, in strata. At the end one answer is drawn by weight. With many
    particles its law approaches the target's law of answers that obey the constraint; a single
    particle has the law of grammar-constrained decoding.

    Sources: github.com/genlm/genlm-control, genlm/control/sampler/token.py and sequence.py
    (10 particles and 0.5 in its README), and github.com/genlm/llamppl,
    llamppl/inference/smc_standard.py. Unlike the release, which forces the end of an answer at
    the length limit and weighs it, an answer that the limit cuts keeps its weight.

    All particles are branches behind one cached prompt. Particles with equal answers are fed
    once, so that resampling moves no key or value and a concentrated law costs little. A token
    is emitted when all particles of positive weight agree on it.

    Args:
        grammar: As for `Constrained`; None is plain decoding.
        particles: Number of weighted answers.
        ess_threshold: Share of the particles to which the effective sample size must fall to
            resample; 0 never does.
        max_accepts: Tokens that are accepted before a weight is estimated, two or more. More
            give a steadier weight for more tests.

    Raises:
        ConfigError: If a number lies outside its range, or the grammar is refused.
    """

    needs = frozenset({"tree_mask"})

    def __init__(
        self,
        grammar: str | Grammar | None,
        particles: int,
        ess_threshold: float = 0.5,
        max_accepts: int = 2,
    ) -> None:
        super().__init__(grammar)
        check_whole("particles", particles, 1)
        check_number("ess_threshold", ess_threshold, 0, 1)
        check_whole("max_accepts", max_accepts, 2)
        self._particles = int(particles)
        self._threshold = ess_threshold
        self._accepts = int(max_accepts)

    def check(self, law: Law) -> None:
        """Refuse temperature 0.

        Raises:
            ConfigError: If the law is greedy.
        """
        refuse_greedy(law, "Adaptive weighted rejection sampling")

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots of all particles but one."""
        return 0 if self._grammar is None else (self._particles - 1) * request.max_new_tokens

    def rounds(self, session: Session) -> Rounds:
        """Let the particles grow until all are finished, and draw one.

        Raises:
            DeadEnd: If no particle can go on.
        """
        if self._constraint is None:
            yield from super().rounds(session)
            return
        request, device = session.request, session.prompt.device
        seen = session.target.history.now()
        logits = session.feed(session.prompt, last=1)[0]
        particles = [Particle(self._constraint.start()) for _ in range(self._particles)]
        branches = Branches(1, device)
        for position in itertools.count(len(request.prompt)):
            laws = request.law.probabilities(logits, seen)
            self._step(particles, laws, request, position)
            particles = self._resampled(particles, request, position)
            alive = [particle for particle in particles if particle.weight > -math.inf]
            growing = [particle for particle in alive if not particle.finished]
            if not growing:
                break
            new = _settled(alive, session.emitted)
            if new:
                session.committed += new
                yield session.close()
            prefixes = dict.fromkeys((each.branch, each.tokens[-1]) for each in growing)
            places = {prefix: place for place, prefix in enumerate(prefixes)}
            for particle in growing:
                particle.branch = places[particle.branch, particle.tokens[-1]]
            origins = [branch for branch, _ in prefixes]
            tokens = to_device([token for _, token in prefixes], device)
            if seen is not None:
                seen = seen[to_device(origins, device)].scatter(1, tokens[:, None], True)
            branches.fork(origins)
            mask = branches.grow(range(len(origins)))
            session.clock.lap(Segment.SAMPLING)
            logits = session.feed(tokens[None], mask)[0]
        uniform = request.streams.uniform(len(request.prompt), Purpose.INITIAL)
        chosen = alive[int(request.choices.draw(_weights(alive), uniform))]
        session.committed += chosen.tokens[session.emitted :]
        yield session.close()

    def _step(
        self, particles: Sequence[Particle], laws: Tensor, request: Request, position: int
    ) -> None:
        """Draw a token and its weight for every particle that is not finished.

        Args:
            particles: All particles.
            laws: [branches, V] law of the next token behind every branch.
            request: What was asked.
            position: Absolute position of the token.
        """
        growing = [each for each in particles if each.weight > -math.inf and not each.finished]
        drawn = self._draw(growing, laws, request, position)
        for particle, (token, weight) in zip(growing, drawn, strict=True):
            if weight <= 0:
                particle.weight = -math.inf
                continue
            particle.tokens.append(token)
            particle.weight += math.log(weight)
            length = len(particle.tokens)
            stopped = request.stop.find(particle.tokens, length - 1) is not None
            particle.finished = stopped or length >= request.max_new_tokens
            if not particle.finished:
                particle.matcher.advance(token)
        if all(particle.weight == -math.inf for particle in particles):
            why = "the target's law gives no probability to any token that the grammar allows"
            raise DeadEnd(position - len(request.prompt), why)

    def _draw(
        self, growing: Sequence[Particle], laws: Tensor, request: Request, position: int
    ) -> list[Estimate]:
        """Return a token with its weight for each of some particles."""
        numbers = Numbers(request.streams, position, Purpose.DRAFT, request.choices)
        tops = read(laws.amax(-1))
        counts = [needed_orders(tops[particle.branch], self._accepts) for particle in growing]
        rows = [
            particle.branch
            for particle, count in zip(growing, counts, strict=True)
            for _ in range(count)
        ]
        drawn = iter(orders(laws[to_device(rows, laws.device)], numbers))
        return [
            estimate(list(itertools.islice(drawn, count)), particle.matcher.accepts, numbers)
            for particle, count in zip(growing, counts, strict=True)
        ]

    def _resampled(
        self, particles: list[Particle], request: Request, position: int
    ) -> list[Particle]:
        """Return the particles, resampled in strata where their weights are too uneven."""
        count = len(particles)
        weights = _weights(particles)
        share = weights / weights.sum()
        if 1 / float(share.square().sum()) >= self._threshold * count:
            return particles
        numbers = request.streams.numbers(position, count, Purpose.RESIDUAL)
        strata = (torch.arange(count) + torch.tensor(numbers, dtype=torch.float64)) / count
        origins = read(request.choices.draw(share.expand(count, -1), strata))
        highest = max(particle.weight for particle in particles)
        mean = highest + math.log(float(weights.sum()) / count)
        copies = [particles[origin].copy() for origin in origins]
        for particle in copies:
            particle.weight = mean
        return copies


def _weights(particles: Sequence[Particle]) -> Tensor:
    """Return the weights relative to the largest, [particles] float64."""
    logs = torch.tensor([particle.weight for particle in particles], dtype=torch.float64)
    return (logs - logs.max()).exp()


def _settled(particles: Sequence[Particle], known: int) -> list[int]:
    """Return the tokens from index `known` on that all particles share."""
    paths = [particle.tokens[known:] for particle in particles]
    shared = 0
    for tokens in zip(*paths, strict=False):
        if len(set(tokens)) > 1:
            break
        shared += 1
    return paths[0][:shared]
