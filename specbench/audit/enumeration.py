"""Run a decoder once for every outcome of its random choices, with exact weights.

Every random choice of the engine is one of its request's `choices`. Scripted ones in their place
turn the real decoder (caches, rollback, cuts and all) into a finite tree of runs; the weights of
its leaves are the decoder's output law to the last bit of float64.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from specbench.choices import BY_NUMBER, Choices
from specbench.clock import CpuClock
from specbench.decoding.base import Decoder
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request
from specbench.law import History, Law
from specbench.models.base import Model
from specbench.models.pair import ModelPair
from specbench.rng import Purpose, Streams

Tokens = tuple[int, ...]
Distribution = Mapping[Tokens, float]
"""Probability of every sequence of emitted tokens."""


class NotReproducible(Exception):
    """A decoder met other choices when the same ones were made before.

    It has random numbers of its own, or remembers earlier requests, and cannot be enumerated.
    """


class Script(Choices):
    """A path through the tree of choices; unexplored branches are remembered.

    Args:
        choices: The choices to make first; behind them, the first possible one is made.

    Attributes:
        weight: Probability of the path so far.
        branches: Beginnings of the paths that leave this one at a later choice.
    """

    def __init__(self, choices: Sequence[int] = ()) -> None:
        self.begin(choices)

    def begin(self, choices: Sequence[int]) -> None:
        """Go back to the root, for the path with these choices."""
        self.choices = list(choices)
        self.weight = 1.0
        self.branches: list[list[int]] = []
        self._next = 0

    def choose(self, probabilities: Sequence[float]) -> int:
        """Choose one of several outcomes and remember the others."""
        options = [i for i, p in enumerate(probabilities) if p > 0]
        if self._next < len(self.choices):
            choice = self.choices[self._next]
            if choice not in options:
                raise NotReproducible
        else:
            choice = options[0]
            prefix = self.choices[: self._next]
            self.branches += [[*prefix, other] for other in options[1:]]
            self.choices.append(choice)
        self._next += 1
        self.weight *= probabilities[choice]
        return choice

    def draw(self, probabilities: Tensor, uniform: Tensor | float | None) -> Tensor:
        """Draw from each distribution; the number is not looked at."""
        flat = probabilities.reshape(-1, probabilities.shape[-1])
        chosen = [
            self.choose((row / row.sum()).tolist()) if row.sum() > 0 else len(row) - 1
            for row in flat
        ]
        return torch.tensor(chosen).reshape(probabilities.shape[:-1])

    def draw_distinct(self, probabilities: Tensor, uniforms: Tensor) -> Tensor:
        """Draw one after another without replacement."""
        left = probabilities.clone()
        drawn: list[Tensor] = []
        for _ in range(uniforms.shape[-1]):
            drawn.append(self.draw(left, None))
            left.scatter_(-1, drawn[-1].unsqueeze(-1), 0.0)
        return torch.stack(drawn, -1)

    def happens(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Say which events happen."""
        flat = probability.clamp(max=1).reshape(-1).tolist()
        chosen = [self.choose([1 - p, p]) == 1 for p in flat]
        return torch.tensor(chosen).reshape(probability.shape)

    def pick(self, numbers: Sequence[float], count: int) -> list[int]:
        """Return one of `count` with equal probability for each number."""
        return [self.choose([1 / count] * count) for _ in numbers]


class GuessedScript(Script):
    """A script in which initial guesses are no choices: their numbers decide them.

    Only those that were drawn from a law need to be enumerated.
    """

    def pick(self, numbers: Sequence[float], count: int) -> list[int]:
        """Return one of `count` by each number."""
        return BY_NUMBER.pick(numbers, count)


@dataclass(frozen=True)
class Enumeration:
    """The output law of a decoder, as far as it was enumerated.

    Attributes:
        law: {emitted tokens: probability}.
        paths: Number of runs.
        complete: Whether every path was run; the probabilities sum to 1 then.
        proposed: Expected number of draft tokens of one generation.
        accepted: Expected number of them that were accepted.
    """

    law: Distribution
    paths: int
    complete: bool
    proposed: float
    accepted: float


@dataclass(frozen=True)
class _Reseeded(Streams):
    """Streams with another seed for every number but those of initial guesses.

    An initial guess may be any token, so its number decides nothing about the law. Where a
    decoder's enumerated law changes with any other number, it makes random choices that are not
    scripted.
    """

    other: int = 1

    def _of(self, purpose: Purpose) -> Streams:
        changed = purpose is not Purpose.INITIAL
        return Streams(self.seed + self.other if changed else self.seed, self.request)

    def uniform(self, position: int, purpose: Purpose, index: int = 0) -> float:
        return self._of(purpose).uniform(position, purpose, index)

    def numbers(self, start: int, count: int, purpose: Purpose, offset: int = 0) -> list[float]:
        return self._of(purpose).numbers(start, count, purpose, offset)

    def noise_seed(self, start: int, purpose: Purpose, offset: int = 0) -> int:
        return self._of(purpose).noise_seed(start, purpose, offset)


def reseeded(request: Request, other: int) -> Request:
    """Return the request with random numbers of another seed, initial guesses aside."""
    streams = _Reseeded(request.streams.seed, request.streams.request, other)
    return replace(request, streams=streams)


def enumerate_output(
    decoder: Decoder, models: ModelPair, request: Request, most_paths: int | None = None
) -> Enumeration:
    """Return a decoder's output law for one request, exactly.

    Carried state is forgotten before every run, as the runner does before every sample.

    Args:
        decoder: The decoder; `prepare` was called where it needs it.
        models: The pair, small enough that its choices can be enumerated.
        request: What is asked of it.
        most_paths: Give up after so many runs; None never.
    """

    def generate(script: Script) -> Generation:
        decoder.reset()
        return decoder.generate(models, replace(request, choices=script), CpuClock())

    return walk(generate, Script, most_paths)


def walk(
    generate: Callable[[Script], Generation],
    kind: type[Script],
    most_paths: int | None = None,
) -> Enumeration:
    """Run a generation once for every path through its choices.

    Carried state stays from run to run: the caller says when it is forgotten.

    Args:
        generate: Runs with such choices.
        kind: The class of the scripts.
        most_paths: Give up after so many runs; None never.
    """
    result: dict[Tokens, float] = defaultdict(float)
    pending: list[list[int]] = [[]]
    paths = 0
    proposed = accepted = 0.0
    script = kind()
    while pending and (most_paths is None or paths < most_paths):
        script.begin(pending.pop())
        generation = generate(script)
        check_ledger(generation)
        result[generation.tokens] += script.weight
        proposed += script.weight * sum(r.count.proposed for r in generation.rounds)
        accepted += script.weight * sum(r.count.accepted for r in generation.rounds)
        pending += script.branches
        paths += 1
    return Enumeration(dict(result), paths, not pending, proposed, accepted)


def check_ledger(generation: Generation) -> None:
    """Assert that the ledger's emitted tokens are the tokens of the generation."""
    emitted = sum(round_.count.emitted for round_ in generation.rounds)
    assert emitted == len(generation.tokens), "the ledger does not count the emitted tokens"


Mix = Callable[[Tokens, list[float]], list[float]]
"""Changes a next-token law, given the tokens before it: for biased laws."""


def next_law(model: Model, law: Law, context: Sequence[int]) -> list[float]:
    """Return a model's next-token law after a context, by one forward of its own."""
    cache = model.new_cache(1, len(context))
    fed = torch.tensor([list(context)])
    logits = model.forward(fed, cache)[:, -1]
    history = History(law, fed, model.vocab_size)
    probabilities: list[float] = law.probabilities(logits, history.now())[0].tolist()
    return probabilities


def true_law(
    models: ModelPair,
    law: Law,
    prompt: Sequence[int],
    max_new_tokens: int,
    stop: Sequence[int] | frozenset[int] | set[int] = (),
    mix: Mix | None = None,
) -> dict[Tokens, float]:
    """Return {tokens: probability} by multiplying the target's law along every sequence."""
    result: dict[Tokens, float] = {}
    pending: list[tuple[Tokens, float]] = [((), 1.0)]
    while pending:
        tokens, weight = pending.pop()
        if len(tokens) == max_new_tokens or (tokens and tokens[-1] in stop):
            result[tokens] = weight
            continue
        context = (*prompt, *tokens)
        following = next_law(models.target, law, context)
        for token, p in enumerate(mix(context, following) if mix else following):
            if p > 0:
                pending.append(((*tokens, token), weight * p))
    return result


def total_variation(left: Distribution, right: Distribution) -> float:
    """Return half the sum of the differences of two laws over sequences."""
    keys = {*left, *right}
    return sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in keys) / 2


def greedy_tokens(
    models: ModelPair, law: Law, prompt: Sequence[int], max_new_tokens: int, stop: frozenset[int]
) -> Tokens:
    """Return the target's own greedy continuation, by one forward for each token.

    It shares no code with `loops.autoregressive`, so that it can judge that loop too.
    """
    tokens: list[int] = []
    for _ in itertools.repeat(None, max_new_tokens):
        following = next_law(models.target, law, (*prompt, *tokens))
        tokens.append(max(range(len(following)), key=following.__getitem__))
        if tokens[-1] in stop:
            break
    return tuple(tokens)
