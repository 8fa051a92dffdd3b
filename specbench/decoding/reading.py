"""The one look of a round at the device, and whose time it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from specbench.clock import Clock, Segment
from specbench.transfer import Pending


def read(tensor: Tensor, clock: Clock | None) -> Any:
    """Return a tensor's values on the host, as `Tensor.tolist` does.

    On CUDA, what was enqueued so far is sampling; waiting for the values and what the host makes
    of them is not.

    Args:
        tensor: All that the host must know of a round, packed into one tensor.
        clock: The generation's clock; None where no time is charged.
    """
    if not tensor.is_cuda:
        return tensor.tolist()
    pending = Pending(tensor)
    if clock is not None:
        clock.lap(Segment.SAMPLING)
    return pending.values()
