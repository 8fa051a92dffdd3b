"""Exact output laws of the Jacobi family, without the choices that nothing depends on.

A round tests and draws at every column at once. What it draws before the first rejection, or at
a draft that is kept, is never read; walking through it would only multiply equal runs. Where it
is read nevertheless, the law comes out wrong, and the test that uses this says so.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from specbench.choices import BY_NUMBER
from specbench.clock import CpuClock
from specbench.decoding.request import Request
from specbench.rng import Streams
from tests.unit.decoding.enumeration import Script


class RoundScript(Script):
    """A script that chooses only what a round of the window reads.

    Args:
        choices: The path.
        coupling: "fresh" or "maximal".
    """

    def __init__(self, choices, coupling):
        super().__init__(choices)
        self._coupling = coupling
        self._accepted = None

    def happens(self, probability, uniform):
        accepted = []
        for p in probability.clamp(max=1).tolist():
            read = self._coupling == "maximal" or all(accepted)
            accepted.append(read and self.choose([1 - p, p]) == 1)
        self._accepted = accepted
        return torch.tensor(accepted)

    def draw(self, probabilities, uniform):
        if self._accepted is None or len(probabilities) == 1:
            return super().draw(probabilities, uniform)
        accepted, self._accepted = [*self._accepted, False], None
        first = accepted.index(False)
        drawn = []
        for column, weights in enumerate(probabilities):
            kept = accepted[column] and self._coupling == "maximal"
            read = column >= first and not kept
            drawn.append(int(super().draw(weights, None)) if read else 0)
        return torch.tensor(drawn)


def family_law(
    decoder, models, law, count, coupling="fresh", prompt=(0, 1, 0), initial_law=True, script=None
):
    """Return {tokens: probability} of a decoder of the family, exactly.

    Args:
        decoder: A decoder with that coupling.
        models: The pair.
        law: The target's law.
        count: Number of tokens.
        coupling: "fresh" or "maximal".
        prompt: The prompt.
        initial_law: Whether initial guesses are enumerated too. Point masses need not be: their
            law is right for each of them.
        script: The class that chooses; `RoundScript` where None.
    """
    kind = script or (lambda choices: RoundScript(choices, coupling))
    result = defaultdict(float)
    pending = [[]]
    while pending:
        script = kind(pending.pop())
        if not initial_law:
            script.pick = BY_NUMBER.pick
        streams = Streams(0, "enumeration")
        request = Request(tuple(prompt), count, law, streams, choices=script)
        tokens = decoder.generate(models, request, CpuClock()).tokens
        result[tokens] += script.weight
        pending += script.branches
    return dict(result)


def variation(left, right):
    """Return the total variation of two laws over sequences."""
    keys = set(left) | set(right)
    return sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in keys) / 2
