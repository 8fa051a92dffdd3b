"""Small random models of every shape that the native step computes."""

from __future__ import annotations

import torch

from specbench.models.decoder import LeanDecoder
from specbench.models.lean_weights import Layer, Weights, fused, projection, rotary_tables
from specbench.models.norm import HeadNorm

CPU = torch.device("cpu")
VOCABULARY, CONTEXT = 203, 700

SHAPES = {
    "grouped": dict(heads=6, groups=2, width=16, channels=90, inner=150),
    "wide heads": dict(heads=2, groups=2, width=64, channels=64, inner=96),
    "wider heads": dict(heads=4, groups=1, width=128, channels=80, inner=70),
    "biases": dict(heads=4, groups=4, width=32, channels=64, inner=96, biases=True),
    "head norm": dict(heads=4, groups=2, width=32, channels=64, inner=96, norm="root"),
    "layer norm": dict(heads=4, groups=4, width=16, channels=64, inner=96, norm="layer"),
    "window": dict(heads=4, groups=2, width=16, channels=64, inner=96, window=11),
    "own head": dict(heads=4, groups=2, width=16, channels=64, inner=96, own_head=True),
}


def lean(name, dtype=torch.float32, layers=3):
    """Return a lean decoder of a shape; the same every time."""
    return LeanDecoder(weights(dtype=dtype, layers=layers, **SHAPES[name]), name)


def weights(
    *,
    dtype,
    layers,
    heads,
    groups,
    width,
    channels,
    inner,
    biases=False,
    norm=None,
    window=None,
    own_head=False,
):
    generator = torch.Generator().manual_seed(7)

    def draw(*shape, scale=1.0, around=0.0):
        return (torch.randn(*shape, generator=generator) * scale + around).to(dtype)

    def linear(outputs, inputs, scale=1.0):
        weight = draw(outputs, inputs, scale=scale * inputs**-0.5)
        bias = [draw(outputs, scale=0.3)] if biases else None
        return fused([weight], bias, device=CPU, dtype=dtype)

    def head_norm():
        if norm is None:
            return None
        size = (heads + groups, width)
        bias = draw(*size, scale=0.3) if norm == "layer" else None
        return HeadNorm(draw(*size, scale=0.3, around=1.0), 1e-5, bias)

    made = [
        Layer(
            attention_norm=draw(channels, scale=0.3, around=1.0),
            qkv=linear((heads + 2 * groups) * width, channels),
            head_norm=head_norm(),
            output=linear(channels, heads * width, 0.4),
            feed_forward_norm=draw(channels, scale=0.3, around=1.0),
            gate_up=linear(2 * inner, channels),
            down=linear(channels, inner, 0.4),
            window=window if index != 1 else None,
        )
        for index in range(layers)
    ]
    angles = torch.arange(CONTEXT)[:, None] / 1000.0 ** torch.linspace(0, 1, width // 2)
    cos, sin = rotary_tables(angles, CPU, dtype)
    head = projection(draw(VOCABULARY, channels, scale=channels**-0.5), device=CPU, dtype=dtype)
    return Weights(
        embedding=draw(VOCABULARY, channels),
        layers=made,
        final_norm=draw(channels, scale=0.3, around=1.0),
        head=(lambda x: head(x) * 2) if own_head else head,
        cos=cos,
        sin=sin,
        heads=heads,
        groups=groups,
        epsilon=1e-5,
    )
