"""Between host and device without stopping either.

On CUDA a plain `torch.tensor(values, device=...)` waits until the device has finished all earlier
work, and so does every look at a result. Decoding code therefore sends values through
`to_device`, which never waits, and looks at results through `read`, which waits for the one
result and for nothing that was enqueued behind it.

On a CPU both are what they replace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_EVENTS: defaultdict[torch.device, list[torch.cuda.Event]] = defaultdict(list)
"""Events that nobody waits for any more: creating one costs more than recording it."""


def to_device(
    values: Sequence[Any] | float, device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """Return a tensor of host values on a device.

    On CUDA the values are staged in pinned memory, which torch keeps until the copy is done.

    Args:
        values: A number, or nested sequences of numbers.
        device: Where the tensor must live.
        dtype: Its element type; None takes torch's choice for the values.
    """
    if device.type == "cpu":
        return torch.tensor(values, dtype=dtype)
    if device.type == "cuda":
        staged = torch.tensor(values, dtype=dtype, pin_memory=True)
        return staged.to(device, non_blocking=True)
    return torch.tensor(values, dtype=dtype, device=device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the tensor itself where it is there already.

    For masks and tables that are made on the host once and kept.
    """
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Pending:
    """Values on their way to the host.

    Args:
        tensor: What to read. Work that is enqueued after this call does not delay the values.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._device = tensor.device
        self._event: torch.cuda.Event | None = None
        self._values = tensor
        if tensor.is_cuda:
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            events = _EVENTS[self._device]
            self._event = events.pop() if events else torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(self._device))

    def arrived(self) -> Tensor:
        """Wait for the values, and return them in a tensor of the host."""
        if self._event is not None:
            self._event.synchronize()
            _EVENTS[self._device].append(self._event)
            self._event = None
        return self._values

    def values(self) -> Any:
        """Wait for the values, and return them as `Tensor.tolist` does."""
        return self.arrived().tolist()


def read(tensor: Tensor) -> Any:
    """Return a tensor's values on the host, as `Tensor.tolist` does.

    Args:
        tensor: All that the host must know of a round, packed into one tensor.
    """
    return Pending(tensor).values() if tensor.is_cuda else tensor.tolist()
