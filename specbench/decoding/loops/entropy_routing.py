"""Entropy adaptive decoding: the large model where the text is uncertain, else the small one."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import torch

from specbench.cache import Cache
from specbench.clock import Clock, Segment
from specbench.decoding.base import Decoder, Tally, check_cache, room
from specbench.decoding.ledger import Count, Generation
from specbench.decoding.loops.autoregressive import next_token
from specbench.decoding.loops.scoring import entropy, widened
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.reading import read
from specbench.decoding.request import Request
from specbench.law import History
from specbench.models.base import Model
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


@dataclass
class _Route:
    """One of the two models with its own cache, law and history."""

    model: Model
    cache: Cache
    request: Request
    history: History
    segment: Segment


class EntropyRouting(Decoder):
    """Entropy Adaptive Decoding (Simonds 2025, arXiv:2502.06833).

    The mean entropy (bits, of the unprocessed logits) of the last `window` steps decides who
    writes the next token: above `tau` the large model, else the small one. The model that takes
    over first reads, in one forward, the tokens that it has not seen; the ledger counts them.
    Nothing is verified: the output follows neither model's law.

    Before the first step nothing is known and the entropy counts as infinite, so the prompt
    goes to the large model. No code was found on GitHub, and the paper was read through two
    reviews that agree on bits, a window of 5 steps and a least stay. They do not give the stay's
    length, nor say whether the window holds steps of both models: here it holds those since the
    last switch, which is the same while the stay is no shorter than the window.

    Args:
        tau: Threshold in bits. 0 keeps the large model always, which is plain decoding;
            infinity keeps the small one, which is plain decoding of the draft.
        window: Steps that are averaged.
        dwell: Least number of tokens that a model writes before the other may take over.

    Raises:
        ConfigError: If tau is negative, or window or dwell is less than one.
    """

    needs = frozenset({"draft"})

    def __init__(self, tau: float, window: int = 5, dwell: int = 5) -> None:
        check_number("tau", tau, 0)
        check_whole("window", window, 1)
        check_whole("dwell", dwell, 1)
        self._tau = tau
        self._window = window
        self._dwell = dwell

    def generate(self, models: ModelPair, request: Request, clock: Clock) -> Generation:
        """Continue one prompt."""
        capacity = room(models, request)
        clock.start()
        large, small = self._routes(models, request, capacity)
        committed = list(request.prompt)
        recent: deque[float] = deque(maxlen=self._window)
        route = small if math.isinf(self._tau) else large
        stay = 0
        tally = Tally(request, clock)
        while tally.cut is None:
            missed = committed[route.cache.lengths[0] :]
            fed = to_device([missed], route.model.device)
            logits = route.model.forward(fed, route.cache, last=1)[:, -1]
            clock.lap(route.segment)
            token = next_token(logits, route.request, route.history, len(committed))
            large.history.commit(token[:, None])
            small.history.commit(token[:, None])
            uncertainty = entropy(widened(logits).softmax(-1)) / math.log(2)
            chosen, bits = read(torch.cat((token.double(), uncertainty.double())), clock)
            committed.append(int(chosen))
            check_cache(route.cache, committed)
            work = (1, len(missed), 0, 0) if route is large else (0, 0, 1, len(missed))
            tally.add([int(chosen)], Count(0, 0, 1, 0, *work))

            recent.append(bits)
            stay += 1
            wanted = large if self._uncertain(recent) else small
            if wanted is not route and stay >= self._dwell:
                route, stay = wanted, 0
                recent.clear()
        return tally.finish()

    def _uncertain(self, recent: deque[float]) -> bool:
        return self._tau == 0 or sum(recent) / len(recent) > self._tau

    def _routes(self, models: ModelPair, request: Request, capacity: int) -> tuple[_Route, _Route]:
        assert models.draft is not None
        large, small = models.target, models.draft
        own = replace(request, law=request.draft_law or request.law)
        prompt = to_device([request.prompt], large.device)
        return (
            _Route(
                large,
                models.target_cache(capacity),
                request,
                History(request.law, prompt, large.vocab_size),
                Segment.TARGET,
            ),
            _Route(
                small,
                models.draft_cache(capacity),
                own,
                History(own.law, prompt, small.vocab_size),
                Segment.DRAFT,
            ),
        )
