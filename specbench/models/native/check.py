"""Does the compiled step compute what the eager path does? Asked once, before it is trusted.

A compiler that was never tried may be wrong. Two layers of random weights run both ways, a prompt
and a tree behind it, in both dtypes and in the threads that are set: some milliseconds.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from specbench.models.base import AncestorMask, View
from specbench.models.decoder import LeanDecoder
from specbench.models.lean_weights import Layer, Weights, projection, rotary_tables
from specbench.models.native.decoder import NativeDecoder
from specbench.models.native.library import Unavailable

_HEADS, _GROUPS, _WIDTH, _CHANNELS, _INNER, _VOCABULARY, _SLOTS = 4, 2, 32, 64, 96, 101, 48
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""Of logits around one; something wrong is off by one and more."""


def native_decoder(lean: LeanDecoder, *, release: bool = False) -> NativeDecoder:
    """Return a decoder over the native step, which has been checked here.

    Args:
        lean: See `NativeDecoder`.
        release: Likewise.

    Raises:
        Unavailable: If there is no step, or none for this model, or it computes something else.
    """
    wrong = _wrong(torch.get_num_threads())
    if wrong:
        raise Unavailable(wrong)
    return NativeDecoder(lean, release=release)


@cache
def _wrong(threads: int) -> str:
    """Say what the step gets wrong, as a clause; nothing where it is right."""
    for dtype, tolerance in _TOLERANCE.items():
        lean = LeanDecoder(_weights(dtype), "check")
        expected, got = (_logits(model) for model in (lean, NativeDecoder(lean)))
        off = float((got.float() - expected.float()).abs().max())
        if not off <= tolerance:
            return f"what was compiled computes {str(dtype)[6:]} logits that are {off:.2g} off"
    return ""


def _logits(model: LeanDecoder | NativeDecoder) -> Tensor:
    tokens = torch.arange(22)[None] * 37 % _VOCABULARY
    tree = AncestorMask(
        torch.tensor([0, 1, 1, 2]),
        torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]], dtype=torch.bool),
    )
    kept = model.new_cache(1, _SLOTS)
    parts = [
        model.forward(tokens[:, :17], kept),
        model.forward(tokens[:, 17:18], kept),
        model.forward(tokens[:, 18:], kept, View(tree)),
    ]
    return torch.cat(parts, 1)


def _weights(dtype: torch.dtype) -> Weights:
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).mul(shape[-1] ** -0.5).to(dtype)

    def layer() -> Layer:
        sizes = (
            ((_HEADS + 2 * _GROUPS) * _WIDTH, _CHANNELS),
            (_CHANNELS, _HEADS * _WIDTH),
            (2 * _INNER, _CHANNELS),
            (_CHANNELS, _INNER),
        )
        qkv, output, gate_up, down = (
            projection(draw(*size), device=cpu, dtype=dtype) for size in sizes
        )
        ones = torch.ones(_CHANNELS, dtype=dtype)
        return Layer(ones, qkv, None, output, ones, gate_up, down)

    cos, sin = rotary_tables(torch.randn(_SLOTS, _WIDTH // 2, generator=generator), cpu, dtype)
    return Weights(
        embedding=draw(_VOCABULARY, _CHANNELS) * 8,
        layers=[layer(), layer()],
        final_norm=torch.ones(_CHANNELS, dtype=dtype),
        head=projection(draw(_VOCABULARY, _CHANNELS), device=cpu, dtype=dtype),
        cos=cos,
        sin=sin,
        heads=_HEADS,
        groups=_GROUPS,
        epsilon=1e-5,
    )
