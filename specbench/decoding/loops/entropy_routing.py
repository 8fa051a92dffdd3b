"""Entropy adaptive decoding: the large model where the text is uncertain, else the small one."""

from __future__ import annotations

import math
from collections import deque

import torch

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.loops.scoring import entropy, widened
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.session import Rounds, Session
from specbench.transfer import to_device


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

    def rounds(self, session: Session) -> Rounds:
        """Emit one token a round, from the model whose turn it is."""
        large, small = session.target, session.draft()
        recent: deque[float] = deque(maxlen=self._window)
        route = small if math.isinf(self._tau) else large
        stay = 0
        while True:
            fed = to_device([session.committed[route.cache.lengths[0] :]], route.model.device)
            logits = route.feed(fed, last=1)[:, -1]
            session.clock.lap(Segment.TARGET if route is large else Segment.DRAFT)
            token = route.next_token(logits, len(session.committed))
            uncertainty = entropy(widened(logits).softmax(-1)) / math.log(2)
            chosen, bits = session.read(torch.cat((token.double(), uncertainty.double())))
            session.commit([int(chosen)])
            session.check_cache(route.cache)
            yield session.close()

            recent.append(bits)
            stay += 1
            wanted = large if self._uncertain(recent) else small
            if wanted is not route and stay >= self._dwell:
                route, stay = wanted, 0
                recent.clear()

    def _uncertain(self, recent: deque[float]) -> bool:
        return self._tau == 0 or sum(recent) / len(recent) > self._tau
