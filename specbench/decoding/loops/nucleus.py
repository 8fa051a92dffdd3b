"""Nucleus sampling as a method: plain decoding under a law that is cut to its nucleus."""

from __future__ import annotations

from dataclasses import replace

from specbench.clock import Clock
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.ranges import check_number
from specbench.decoding.request import Request
from specbench.decoding.session import Session
from specbench.models.pair import ModelPair


class Nucleus(Autoregressive):
    """Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751, section 3.1).

    Samples from the smallest set of most probable tokens whose mass reaches `top_p`. The run's
    own law, whose hash stands in the result file, stays that of the target and of the baseline;
    this method departs from it and is therefore lossy. Where the run's law is cut to a nucleus
    already, the smaller of the two holds. At temperature 0 it is plain greedy decoding.

    Args:
        top_p: Mass of the nucleus; 1 is plain decoding.

    Raises:
        ConfigError: If it is not above 0 and at most 1.
    """

    def __init__(self, top_p: float) -> None:
        check_number("top_p", top_p, 1e-9, 1)
        self._top_p = top_p

    def open(self, models: ModelPair, request: Request, clock: Clock) -> Session:
        """Begin a request under the cut law."""
        law = request.law
        nucleus = min(self._top_p, 1.0 if law.top_p is None else law.top_p)
        cut = replace(request, law=replace(law, top_p=nucleus))
        return super().open(models, cut, clock)
