"""Plain decoding: one target forward for each token. The denominator of every speedup.

It shares cache, kernels, law and random streams with every method; a slow baseline would be a
lie about all of them. On CUDA it therefore runs one step ahead: while the host waits for a token
to look whether the text ends there, the device computes the next one, which needs the token only
where it already is. Where the text does end there, one forward was for nothing; it is counted
in the last round, and its time in the generation's. On a CPU nothing is gained by that.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from specbench.clock import Clock, Segment
from specbench.decoding.base import Decoder, Tally, room
from specbench.decoding.ledger import Count, Generation
from specbench.decoding.request import Request
from specbench.law import History, draw
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import Pending, to_device

Step = Callable[[Tensor, int], Tensor]
"""Feeds a token, [1, T], and draws the one at a position, [1]."""


class Autoregressive(Decoder):
    """Draw one token after another from the target's law."""

    def generate(self, models: ModelPair, request: Request, clock: Clock) -> Generation:
        """Continue one prompt."""
        target = models.target
        capacity = room(models, request)
        clock.start()
        cache = models.target_cache(capacity)
        prompt = to_device([request.prompt], target.device)
        history = History(request.law, prompt, target.vocab_size)
        tally = Tally(request, clock)

        def step(fed: Tensor, position: int) -> Tensor:
            logits = target.forward(fed, cache, last=1)[:, -1]
            clock.lap(Segment.TARGET)
            token = next_token(logits, request, history, position)
            history.commit(token[:, None])
            return token

        decode = _one_ahead if target.device.type == "cuda" else _one_by_one
        decode(step, prompt, tally, clock, request.max_new_tokens)
        return tally.finish()


def _one_by_one(step: Step, fed: Tensor, tally: Tally, clock: Clock, most: int) -> None:
    """Read every token before the next step.

    Args:
        step: One step of decoding.
        fed: [1, T] the prompt.
        tally: Where tokens are recorded.
        clock: The generation's clock.
        most: How many tokens may be emitted.
    """
    position = fed.shape[1]
    while tally.cut is None:
        token = step(fed, position)
        tally.add(token.tolist(), Count(0, 0, 1, 0, 1, fed.shape[1]))
        fed = token[:, None]
        position += 1


def _one_ahead(step: Step, fed: Tensor, tally: Tally, clock: Clock, most: int) -> None:
    """Enqueue every step before the token that it feeds is read; see `_one_by_one`."""
    prompt = fed.shape[1]
    token, count = step(fed, prompt), Count(0, 0, 1, 0, 1, prompt)
    waiting = Pending(token)
    clock.seal()
    for position in range(prompt + 1, prompt + most):
        token = step(token[:, None], position)
        following = Pending(token)
        clock.seal()
        tally.add(waiting.values(), count)
        if tally.cut is not None:
            tally.charge(1, 1)
            return
        waiting, count = following, Count(0, 0, 1, 0, 1, 1)
    tally.add(waiting.values(), count)


def next_token(logits: Tensor, request: Request, history: History, position: int) -> Tensor:
    """Draw the target's next token, [1].

    Args:
        logits: [1, V].
        request: Whose law and random streams apply.
        history: The committed tokens.
        position: Absolute position of the token.
    """
    if request.law.greedy:
        return request.law.argmax(logits, history.now())
    probabilities = request.law.probabilities(logits, history.now())
    return draw(probabilities, request.streams.uniform(position, Purpose.SAMPLE))
