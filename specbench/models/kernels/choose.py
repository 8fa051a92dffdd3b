"""Which product is the fastest for a weight: measured on the device, never assumed.

Each way of streaming a weight is timed against the library's product with CUDA events around a
captured graph, on enough copies of the weight that none is found in the cache. One plan is kept
for a weight, whatever the number of tokens, so that a token's bits do not depend on how many are
fed; the library takes over for those numbers of tokens at which it is clearly faster. The
answers last as long as the process, since another process may meet a device in another mood.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.models.kernels import matmul, pointwise
from specbench.models.kernels.matmul import MatmulPlan

COUNTS = (1, 4, 8, 16)
"""Numbers of tokens at which products are timed; another number goes with the next higher."""

CLEARLY = 0.97
"""The library replaces a plan where it takes less than this share of the plan's time."""

_TOLERANCE = 0.02
_ROUNDS = 9
_CACHES = 4
_MOST_BYTES = 1 << 30

Timer = Callable[[MatmulPlan | None, int], float]
"""Returns the time of a product for a number of tokens; None names the library's."""


class Choice(NamedTuple):
    """How a weight is multiplied.

    Attributes:
        plan: How the kernel streams it; None where no plan works.
        library: The entries of `COUNTS` at which the library's product runs.
        times: Microseconds of the plan and of the library's product at each of `COUNTS`.
    """

    plan: MatmulPlan | None
    library: frozenset[int]
    times: tuple[tuple[float, float], ...] = ()

    def plan_for(self, tokens: int) -> MatmulPlan | None:
        """Return the plan for a number of tokens, or None for the library's product."""
        count = next((count for count in COUNTS if count >= tokens), None)
        return None if count is None or count in self.library else self.plan


class Key(NamedTuple):
    """What a choice depends on.

    Attributes:
        device: The device's name and number.
        outputs: Rows of the weight.
        inputs: Columns of the weight.
        dtype: Its element type.
        gated: Whether gates are activated behind it.
    """

    device: str
    outputs: int
    inputs: int
    dtype: torch.dtype
    gated: bool


_choices: dict[Key, Choice] = {}


def plan_of(weight: Tensor, tokens: int, *, gated: bool) -> MatmulPlan | None:
    """Return the plan for a weight [out, in], or None for the library's product.

    A weight that was not measured is the library's.
    """
    choice = _choices.get(_key(weight, gated))
    return None if choice is None else choice.plan_for(tokens)


def measured(weight: Tensor, *, gated: bool) -> Choice:
    """Return the choice for a weight [out, in], measuring it the first time.

    It synchronises and captures graphs: call it while nothing is timed or captured.
    """
    key = _key(weight, gated)
    if key not in _choices:
        with torch.inference_mode():
            _choices[key] = decide(matmul.plans(weight, gated=gated), _Bench(weight, gated))
    return _choices[key]


def chosen() -> dict[Key, Choice]:
    """Return all choices of this process, for whoever records how a result was made."""
    return dict(_choices)


def decide(plans: Sequence[MatmulPlan], time: Timer) -> Choice:
    """Choose among plans and the library's product.

    One token is plain decoding and 16 the widest verification; the plan with the smallest
    product of both times is kept, so that neither side of a speedup is favoured.

    Args:
        plans: How the kernel may stream the weight.
        time: Times a plan, infinity for one that does not work.
    """
    scores = [(time(plan, COUNTS[0]) * time(plan, COUNTS[-1]), plan) for plan in plans]
    score, plan = min(scores, key=lambda entry: entry[0], default=(float("inf"), None))
    if plan is None or score == float("inf"):
        return Choice(None, frozenset(COUNTS))
    times = tuple((time(plan, count), time(None, count)) for count in COUNTS)
    faster = (
        count
        for count, (ours, library) in zip(COUNTS, times, strict=True)
        if library < CLEARLY * ours
    )
    return Choice(plan, frozenset(faster), times)


def _key(weight: Tensor, gated: bool) -> Key:
    index = weight.device.index
    name = torch.cuda.get_device_name(weight.device) if weight.is_cuda else "cpu"
    outputs, inputs = weight.shape
    return Key(f"{name} {index}", outputs, inputs, weight.dtype, gated)


class _Bench:
    """Times products of one shape on the device where its weight lies.

    Args:
        weight: [out, in].
        gated: Whether gates are activated behind it.
    """

    def __init__(self, weight: Tensor, gated: bool) -> None:
        size = weight.numel() * weight.element_size()
        reach = torch.cuda.get_device_properties(weight.device).L2_cache_size * _CACHES
        copies = max(1, min(-(-reach // size), _MOST_BYTES // size))
        self._weights = [weight, *(weight.clone() for _ in range(copies - 1))]
        self._gated = gated
        self._times: dict[tuple[MatmulPlan | None, int], float] = {}

    def __call__(self, plan: MatmulPlan | None, tokens: int) -> float:
        """Return the median microseconds of a product; infinity where it is wrong or fails."""
        key = (plan, tokens)
        if key not in self._times:
            weight = self._weights[0]
            x = torch.randn(tokens, weight.shape[1], device=weight.device).to(weight.dtype)
            try:
                right = plan is None or self._agrees(plan, x)
                calls = [partial(self._product, plan, x, each) for each in self._weights]
                self._times[key] = median_time(calls) if right else float("inf")
            except Exception:  # a plan that asks for too much of a device is no plan
                if plan is None:
                    raise
                self._times[key] = float("inf")
        return self._times[key]

    def _product(self, plan: MatmulPlan | None, x: Tensor, weight: Tensor) -> Tensor:
        if plan is None:
            product = F.linear(x, weight)
            return pointwise.silu_mul(product) if self._gated else product
        if self._gated:
            return matmul.matmul_silu_mul(x, weight, plan=plan)
        return matmul.few_token_matmul(x, weight, plan=plan)

    def _agrees(self, plan: MatmulPlan, x: Tensor) -> bool:
        """Compare a plan with the library's product."""
        weight = self._weights[0]
        ours = self._product(plan, x, weight).float()
        library = self._product(None, x, weight).float()
        return bool((ours - library).norm() <= _TOLERANCE * library.norm())


def median_time(calls: Sequence[Callable[[], object]]) -> float:
    """Return the median microseconds of a call, all of them captured in one graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        calls[0]()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    times: list[float] = []
    for _ in range(_ROUNDS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e3 / len(calls))
    return float(statistics.median(times))
