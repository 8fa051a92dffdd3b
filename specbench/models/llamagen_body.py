"""The transformer of LlamaGen in the lean decoder's layout.

FoundationVision/LlamaGen (autoregressive/models/gpt.py): a Llama with one fused projection of
queries, keys and values, and with rotary positions of two dimensions: half of each head's channels
turn by the row of a code, half by its column, in interleaved pairs. The condition before the
picture has no place in the grid; its queries and keys are multiplied by zero, so that every token
weighs all visible condition slots alike.

Shapes: K codes, C channels, H heads, D head width, N condition slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specbench.errors import ModelError
from specbench.models.decoder import LeanDecoder
from specbench.models.image import Grid
from specbench.models.lean_weights import (
    Layer,
    Weights,
    fused,
    halves_from_pairs,
    projection,
    rotary_tables,
)
from specbench.models.linear import Linear
from specbench.models.state import State

ROTARY_BASE = 10000.0
NORM_EPSILON = 1e-5


def read_body(
    state: State,
    conditions: Tensor,
    *,
    heads: int,
    grid: Grid,
    slots: int,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
) -> LeanDecoder:
    """Return the decoder of a published state dictionary.

    Args:
        state: The weights under their published names.
        conditions: [..., C] embeddings of conditions; they follow the K codes in the decoder's
            table.
        heads: H, which the weights do not tell.
        grid: The codes' places.
        slots: N, the condition slots before the first code.
        name: What the model is called in results.
        device: Where to compute.
        dtype: Compute dtype.

    Raises:
        ModelError: If a weight is missing, or the channels do not split into that many heads.
    """
    codes = state["tok_embeddings.weight"]
    channels = codes.shape[1]
    if heads < 1 or channels % heads or (channels // heads) % 4:
        raise ModelError(
            f"'{name}' does not have {heads} heads",
            f"its {channels} channels must split into heads of a multiple of four",
            "Give the model's own number of heads in the loader (12, 16, 20, 24 or 32).",
        )
    width = channels // heads
    layers = [
        _layer(state, index, heads, width, device, dtype)
        for index in range(state.count("layers.{}.attention.wqkv.weight"))
    ]
    fused_rows = state["layers.0.attention.wqkv.weight"].shape[0]
    cos, sin = rotary_tables(grid_angles(grid, width, slots), device, dtype)
    cos[:slots] = 0
    sin[:slots] = 0
    linear = projection(state["output.weight"], device=device, dtype=dtype)

    def head(x: Tensor) -> Tensor:
        logits = linear(x)  # in float32 at least: the release mixes and warps logits there
        return logits if logits.dtype == torch.float64 else logits.float()

    weights = Weights(
        embedding=torch.cat([part.to(device, dtype) for part in (codes, conditions)]),
        layers=layers,
        final_norm=state["norm.weight"].to(device, dtype),
        head=head,
        cos=cos,
        sin=sin,
        heads=heads,
        groups=(fused_rows // width - heads) // 2,
        epsilon=NORM_EPSILON,
        head_first=0,
    )
    return LeanDecoder(weights, name)


def cache_values(state: State) -> int:
    """Return the numbers that a token of one row leaves in the cache: keys and values."""
    layers = state.count("layers.{}.attention.wqkv.weight")
    fused, channels = state["layers.0.attention.wqkv.weight"].shape
    return int(layers * (fused - channels))


def _layer(
    state: State, index: int, heads: int, width: int, device: torch.device, dtype: torch.dtype
) -> Layer:
    def tensor(name: str) -> Tensor:
        return state[f"layers.{index}.{name}.weight"]

    def one(*parts: Tensor) -> Linear:
        return fused(parts, device=device, dtype=dtype)

    joined = tensor("attention.wqkv")
    query, rest = joined[: heads * width], joined[heads * width :]
    key, value = rest.chunk(2)
    return Layer(
        attention_norm=tensor("attention_norm").to(device, dtype),
        qkv=one(halves_from_pairs(query, width), halves_from_pairs(key, width), value),
        head_norm=None,
        output=one(tensor("attention.wo")),
        feed_forward_norm=tensor("ffn_norm").to(device, dtype),
        gate_up=one(tensor("feed_forward.w1"), tensor("feed_forward.w3")),
        down=one(tensor("feed_forward.w2")),
    )


def grid_angles(grid: Grid, width: int, slots: int) -> Tensor:
    """Return the angles of each position, [slots + places, D / 2]: the row's, then the column's.

    Channel pair i of either half turns by base^(-4 i / D) for each row or column
    (`precompute_freqs_cis_2d` of the release).

    Args:
        grid: The codes' places.
        width: D, a multiple of four.
        slots: Condition slots before the first code; their angles are zero.
    """
    quarter = width // 4
    turn = torch.arange(quarter, dtype=torch.float64) / quarter
    speeds = torch.exp(-math.log(ROTARY_BASE) * turn)
    rows = torch.arange(grid.rows, dtype=torch.float64).repeat_interleave(grid.columns)
    columns = torch.arange(grid.columns, dtype=torch.float64).repeat(grid.rows)
    angles = torch.cat([torch.outer(rows, speeds), torch.outer(columns, speeds)], 1)
    return torch.cat([angles.new_zeros(slots, 2 * quarter), angles])
