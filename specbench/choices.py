"""The random choices of a request, as an object that its request carries.

A decoder draws by `request.choices` and by nothing else. Another object in its place decides
otherwise: the audit passes one that takes every outcome in turn, and so enumerates the decoder's
whole output law.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from specbench.law import draw, draw_distinct, happens


class Choices:
    """Decides each choice by the random number that comes with it."""

    def draw(self, probabilities: Tensor, uniform: Tensor | float) -> Tensor:
        """Draw one token from each distribution; see `law.draw`."""
        return draw(probabilities, uniform)

    def draw_distinct(self, probabilities: Tensor, uniforms: Tensor) -> Tensor:
        """Draw several distinct tokens from each distribution; see `law.draw_distinct`."""
        return draw_distinct(probabilities, uniforms)

    def happens(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Say which events happen; see `law.happens`."""
        return happens(probability, uniform)

    def pick(self, numbers: Sequence[float], count: int) -> list[int]:
        """Return one of `count` with equal probability for each number: an initial guess."""
        return [int(number * count) for number in numbers]


BY_NUMBER = Choices()
"""The choices of every request for which nobody asks for others."""
