"""Adaptive weighted rejection sampling of one token under a constraint.

A token is drawn from p conditioned on the allowed tokens, together with an unbiased estimate w of
their mass: E[w 1{token = x}] = p(x) for every allowed x. Tokens are drawn without replacement and
tested one by one, so that the constraint is asked about two or three tokens and not about the
vocabulary. Lipkin et al. 2025, arXiv:2504.05410; the two estimators, and when each is used, are
those of github.com/genlm/genlm-control, genlm/control/sampler/token.py.

Shapes: B rows, V vocabulary, K tokens that are drawn at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.choices import BY_NUMBER, Choices
from specbench.rng import Purpose, Streams
from specbench.transfer import read, to_device

GEOMETRIC_THRESHOLD = 2 / 3
"""Probability of the likeliest token from which the geometric estimator needs fewer tests."""

_FIRST_DRAWS = 2
_LONGEST_DRAWS = 32
_TINY = 1e-300


class Numbers:
    """Fresh uniform numbers of one position and purpose, however many are wanted.

    Args:
        streams: The request's streams.
        position: Absolute position of the token that they decide.
        purpose: What they decide.
        choices: Decides what is drawn with them.
    """

    def __init__(
        self, streams: Streams, position: int, purpose: Purpose, choices: Choices = BY_NUMBER
    ) -> None:
        self.choices = choices
        self._streams = streams
        self._position = position
        self._purpose = purpose
        self._taken = 0

    def take(self, count: int) -> list[float]:
        """Return the next `count` numbers."""
        numbers = self._streams.numbers(self._position, count, self._purpose, self._taken)
        self._taken += count
        return numbers

    def seed(self) -> int:
        """Return a seed for bulk noise."""
        self._taken += 1
        return self._streams.noise_seed(self._position, self._purpose, self._taken)


class Drawn(NamedTuple):
    """A token of an order.

    Attributes:
        token: Its id.
        mass: Its probability.
        rest: Probability of all tokens behind it; summed, not subtracted, to be precise where it
            is small.
    """

    token: int
    mass: float
    rest: float


class Order:
    """The vocabulary in the order of draws without replacement, drawn as far as it is read.

    A token of probability zero is in no order.

    Args:
        law: [V].
        numbers: Where the draws come from.
        tokens: The first draws.
        masses: Their probabilities.
        tail: Probability of all other tokens.
    """

    def __init__(
        self,
        law: Tensor,
        numbers: Numbers,
        tokens: Sequence[int],
        masses: Sequence[float],
        tail: float,
    ) -> None:
        self._left = law
        self._numbers = numbers
        self._next = _accumulate(tokens, masses, tail)
        self._tokens = list(tokens)

    def __iter__(self) -> Iterator[Drawn]:
        """Yield the tokens; an order is read once."""
        while self._next:
            yield from self._next
            self._next = self._draw_more() if self._next[-1].rest > 0 else []

    def _draw_more(self) -> list[Drawn]:
        """Draw as many tokens again as were drawn before; where they are many, all others."""
        self._left = self._left.index_fill(0, _ids(self._tokens, self._left), 0.0)
        count = min(len(self._tokens), self._left.shape[0] - len(self._tokens))
        if count <= _LONGEST_DRAWS:
            uniforms = _floats(self._numbers.take(count), self._left)
            new = self._numbers.choices.draw_distinct(self._left, uniforms)
        else:
            new = self._all_others()
        masses = self._left[new].double()
        tail = self._left.index_fill(0, new, 0.0).sum(dtype=torch.float64)
        *mixed, rest = read(torch.cat((new.double(), masses, tail[None])))
        tokens = [int(token) for token in mixed[: len(new)]]
        self._tokens += tokens
        return _accumulate(tokens, mixed[len(new) :], rest)

    def _all_others(self) -> Tensor:
        """Order all tokens that are left by their log-probabilities with Gumbel noise."""
        generator = torch.Generator(self._left.device).manual_seed(self._numbers.seed())
        noise = torch.rand(
            self._left.shape, generator=generator, dtype=torch.float64, device=self._left.device
        )
        keys = self._left.double().log() - (-noise.clamp_(min=_TINY).log()).log()
        order = keys.argsort(descending=True)
        return order[: read((self._left > 0).sum())]


def orders(laws: Tensor, numbers: Numbers) -> list[Order]:
    """Draw the beginning of one order for each row, in one transfer.

    Args:
        laws: [B, V], non-negative; unnormalised weights are allowed.
        numbers: Where the draws come from.
    """
    count = min(_FIRST_DRAWS, laws.shape[1])
    uniforms = _floats(numbers.take(laws.shape[0] * count), laws).view(-1, count)
    tokens = numbers.choices.draw_distinct(laws, uniforms)
    masses = laws.gather(-1, tokens)
    tails = laws.scatter(-1, tokens, 0.0).sum(-1, keepdim=True, dtype=torch.float64)
    table = read(torch.cat((tokens.double(), masses.double(), tails), -1))
    return [
        Order(
            laws[row],
            numbers,
            [int(token) for token in line[:count]],
            line[count:-1],
            line[-1],
        )
        for row, line in enumerate(table)
    ]


class Estimate(NamedTuple):
    """A token and its weight.

    Attributes:
        token: A token that the constraint accepts; -1 where there is none.
        weight: Unbiased estimate of the mass of all accepted tokens; 0 where there is none.
    """

    token: int
    weight: float


def needed_orders(top: float, max_accepts: int) -> int:
    """Return how many orders `estimate` wants for one token.

    Args:
        top: Probability of the likeliest token.
        max_accepts: Tokens that are accepted before a weight is estimated, two or more.

    Returns:
        1 for the recursive form; `max_accepts` for the geometric one, which is used where the
        likeliest token has at least `GEOMETRIC_THRESHOLD`, and always with more than two.
    """
    return max_accepts if max_accepts > 2 or top >= GEOMETRIC_THRESHOLD else 1


def estimate(
    choices: Sequence[Order], accepts: Callable[[int], bool], numbers: Numbers
) -> Estimate:
    """Draw a token that a constraint accepts, with its weight.

    Args:
        choices: Independent orders of one law, as many as `needed_orders` says.
        accepts: The constraint.
        numbers: Where the phantom draws come from.
    """
    if len(choices) == 1:
        return recursive(choices[0], accepts)
    return geometric(choices, accepts, numbers)


def recursive(order: Order, accepts: Callable[[int], bool]) -> Estimate:
    """Draw by the recursive estimator.

    Every rejected token multiplies the weight by the share that the tokens behind it have of
    what was left. The first accepted one is returned; the token after it is tested too, and the
    weight is multiplied by 1 if that passes, otherwise by the accepted token's own share.
    """
    weight = 1.0
    tokens = iter(order)
    for drawn in tokens:
        left = drawn.mass + drawn.rest
        if accepts(drawn.token):
            following = next(tokens, None)
            passes = following is None or accepts(following.token)
            return Estimate(drawn.token, weight * (1.0 if passes else drawn.mass / left))
        weight *= drawn.rest / left
    return Estimate(-1, 0.0)


def geometric(
    choices: Sequence[Order], accepts: Callable[[int], bool], numbers: Numbers
) -> Estimate:
    """Draw by the geometric estimator.

    A run of draws with replacement is rebuilt from draws without: before each draw, the repeats
    of tokens that are known to be rejected are made up by a geometric number (`phantoms`). With
    a accepted and r rejected draws the estimate is (a - 1) / (a + r - 1).
    """
    rejected: set[int] = set()
    rejections, left, total, result = 0, 1.0, 0.0, -1
    for order in choices:
        for drawn in order:
            if drawn.token in rejected:
                continue
            total = total or drawn.mass + drawn.rest
            if rejected:
                rejections += phantoms(left, numbers.take(1)[0])
            if accepts(drawn.token):
                result = drawn.token if result < 0 else result
                break
            rejections += 1
            if result < 0:
                left *= drawn.rest / (drawn.mass + drawn.rest)
            else:
                left = max(left - drawn.mass / total, _TINY)
            rejected.add(drawn.token)
        if result < 0:
            return Estimate(-1, 0.0)
    accepted = len(choices)
    return Estimate(result, (accepted - 1) / (accepted + rejections - 1))


def phantoms(left: float, uniform: float) -> int:
    """Return how many draws fall on known tokens before one falls on the others.

    Args:
        left: Probability of the others, above zero.
        uniform: A number in [0, 1).
    """
    if left >= 1.0:
        return 0
    return int(math.log1p(-uniform) / math.log1p(-left))


def _accumulate(tokens: Sequence[int], masses: Sequence[float], tail: float) -> list[Drawn]:
    """Pair draws with the probability behind each; a repeated draw marks an exhausted support."""
    drawn: list[tuple[int, float]] = []
    known: set[int] = set()
    for token, mass in zip(tokens, masses, strict=True):
        if mass <= 0 or token in known:
            break
        known.add(token)
        drawn.append((token, mass))
    rests = [tail]
    for _, mass in reversed(drawn[1:]):
        rests.append(rests[-1] + mass)
    return [Drawn(*pair, rest) for pair, rest in zip(drawn, reversed(rests), strict=False)]


def _ids(tokens: Sequence[int], like: Tensor) -> Tensor:
    return to_device(tokens, like.device)


def _floats(numbers: Sequence[float], like: Tensor) -> Tensor:
    return to_device(numbers, like.device, torch.float64)
