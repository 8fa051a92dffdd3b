"""What launching a kernel needs to know of a device and of a dtype."""

from __future__ import annotations

from functools import cache

import torch

LOG2_E = 1.4426950408889634
"""The kernels exponentiate to base 2, which the hardware does in one instruction."""

OPTIONS = {"enable_fp_fusion": True}
"""Options of every launch: a product and a sum in one instruction, whatever Triton's default."""

_INTERPRETED_MULTIPROCESSORS = 4


@cache
def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors; a few for Triton's interpreter on a CPU."""
    if device.type != "cuda":
        return _INTERPRETED_MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def precision(dtype: torch.dtype) -> str:
    """Return Triton's input precision: float32 is multiplied as float32, never as TF32."""
    return "ieee" if dtype == torch.float32 else "tf32"
