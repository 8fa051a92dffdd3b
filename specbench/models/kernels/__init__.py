"""Triton kernels of a decoding step, which have not run on a GPU yet: `engine=kernels` alone.

Nothing but `models.engines` looks in here (and `doctor`, which asks for the obstacle), and nothing
else runs them: captured graphs over the library's operations are what a GPU gets by itself. Each
kernel is held against its definition in plain torch (`tests/unit/models/kernels/reference.py`),
which Triton's interpreter computes without a GPU. All functions allocate their results, read
lengths on the device and wait for nothing, so that a CUDA graph may capture them.

A layer of T <= 16 tokens takes nine kernels: `norm` (two), `few_token_matmul` (three),
`rotate_and_store`, `decode_attention` (two, one for a small cache), `matmul_silu_mul`, and one more
for each product whose weight is split.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch


def obstacle(device: torch.device) -> str | None:
    """Say why no Triton kernel runs on a device; None where they can be asked for."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "the kernels are for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU's compute capability is below 8.0"
    if find_spec("triton") is None:
        return "Triton is not installed"
    return None
