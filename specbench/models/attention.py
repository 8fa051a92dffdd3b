"""Attention over cached keys in the form in which the CPU's kernel is fastest.

torch's kernel multiplies a block of queries with the keys of one head. Where several query heads
share a key head, a single new token is one query a head, and in bfloat16 a product with one row
is three to ten times slower than with two: plain decoding would pay for a token more than a
method for five. A view that takes the heads of a group as the queries of one head computes the
same. `benchmarks/verify_cost.py` measures both forms; the rules below are what it found.

Shape legend: B rows, T new tokens, H query heads, G key-value heads, D head width, S slots.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    visible: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Return what every query attends to, [B, H, T, D].

    Args:
        queries: [B, H, T, D].
        keys: [B, G, S, D].
        values: [B, G, S, D].
        visible: Additive mask, [T, S] or [B, 1 or H, T, S]; None where all is visible.
        causal: Whether query i sees the slots up to i alone; without a mask.
        scale: What products are multiplied by; None: 1 / sqrt(D).
    """
    rows, heads, count, _ = queries.shape
    groups = keys.shape[1]
    asked = queries
    if count == 1 and queries.device.type == "cpu" and not _differs_by_head(visible):
        if heads == groups:
            if queries.dtype == torch.bfloat16:
                asked = queries.expand(-1, -1, 2, -1)
        elif queries.dtype != torch.float32 or _fills(rows * groups, rows * heads):
            asked = queries.reshape(rows, groups, heads // groups, -1)
    attended = F.scaled_dot_product_attention(
        asked,
        keys,
        values,
        attn_mask=visible,
        is_causal=causal and count > 1,
        scale=scale,
        enable_gqa=asked.shape[1] != groups,
    )
    if asked is queries:
        return attended
    if heads == groups:
        return attended[:, :, :1]
    return attended.reshape(rows, heads, 1, -1)


def _differs_by_head(visible: Tensor | None) -> bool:
    return visible is not None and visible.ndim == 4 and visible.shape[1] != 1


def _fills(groups: int, heads: int) -> bool:
    """Say whether groups divide as well among the threads as heads do, in float32.

    The kernel gives a thread whole heads. In float32 a folded group costs less than its heads
    do, but never so much less that it could wait for a thread.
    """
    threads = torch.get_num_threads()
    waits: bool = -(-groups // threads) * (heads // groups) > -(-heads // threads)
    return not waits
