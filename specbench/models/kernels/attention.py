# mypy: disable-error-code="no-untyped-def, import-untyped, import-not-found"
"""Attention of a few new tokens over a long cache: flash decoding in Triton.

One program reads a chunk of one key-value head's slots once for 16 (or 64) of the query rows
that share it, grouped query heads included; a second kernel joins the chunks (Dao et al. 2023,
"Flash-Decoding for long-context inference"). The length is read on the device and the grid
covers the whole capacity, so that a captured CUDA graph serves every length: programs behind
the end leave at once.

Chunks lie at fixed slots and up to 16 tokens use tiles of one size, so that a token's output
has the same bits whether it is fed alone or among others.

Shapes: B rows, T new tokens, H query heads, G key-value heads, R = H / G, D head width, S cache
slots, W slots of a tree mask, K chunks.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from specbench.models.kernels.launch import LOG2_E, OPTIONS, multiprocessors, precision

MOST_ALIKE = 16
"""Up to this many tokens, a token's output does not depend on how many are fed."""

_TILE_BYTES = 16 * 1024
_SMALLEST_CHUNK, _LARGEST_CHUNK = 128, 1024
_PROGRAMS_PER_MULTIPROCESSOR = 8
_JOINED_AT_ONCE = 16


@triton.jit(do_not_specialize=["count", "tree_width", "capacity", "chunks"])
def attend_kernel(
    query,
    keys,
    values,
    length,
    first,
    ancestors,
    output,
    partial,
    summary,
    scale,
    count,
    tree_width,
    capacity,
    chunks,
    key_row,
    key_group,
    key_slot,
    value_row,
    value_group,
    value_slot,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    ROW_BLOCK: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    WHOLE: tl.constexpr,
    TREE: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend over one chunk; grid (tiles of query rows, chunks, B G)."""
    SHARED: tl.constexpr = HEADS // GROUPS
    row = (tl.program_id(2) // GROUPS).to(tl.int64)
    group = (tl.program_id(2) % GROUPS).to(tl.int64)
    chunk = tl.program_id(1)
    cached = tl.load(length + row)
    end = tl.minimum(cached + count, capacity)
    begin = chunk * CHUNK
    if begin >= end:
        return
    stop = tl.minimum(begin + CHUNK, end)
    hidden = 0
    if PADDED:
        hidden = tl.load(first + row)

    member = tl.program_id(0) * ROW_BLOCK + tl.arange(0, ROW_BLOCK)
    token = member // SHARED
    real = token < count
    line = (row * count + token) * HEADS + group * SHARED + member % SHARED
    channel = tl.arange(0, WIDTH_BLOCK)
    inside = channel < WIDTH
    at = line[:, None] * WIDTH + channel[None, :]
    q = tl.load(query + at, mask=real[:, None] & inside[None, :], other=0.0)

    keys += row * key_row + group * key_group
    values += row * value_row + group * value_group
    largest = tl.full([ROW_BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([ROW_BLOCK], tl.float32)
    mixed = tl.zeros([ROW_BLOCK, WIDTH_BLOCK], tl.float32)
    for position in range(begin, stop, KEY_BLOCK):
        slot = position + tl.arange(0, KEY_BLOCK)
        filled = (slot < stop)[:, None] & inside[None, :]
        k = tl.load(keys + slot[:, None] * key_slot + channel[None, :], mask=filled, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if TREE:
            column = slot - (cached + count - tree_width)
            among = (column >= 0) & (column < tree_width)
            seen = tl.load(
                ancestors + token[:, None] * tree_width + column[None, :],
                mask=real[:, None] & among[None, :],
                other=0,
            )
            visible = (column < 0)[None, :] | (seen != 0)
        else:
            visible = slot[None, :] <= cached + token[:, None]
        visible = visible & (slot < stop)[None, :]
        if PADDED:
            visible = visible & (slot >= hidden)[None, :]
        scores = tl.where(visible, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        # A row that has seen nothing yet has no finite maximum to subtract.
        base = tl.where(larger == float("-inf"), 0.0, larger)
        weight = tl.exp2(scores - base[:, None])
        kept = tl.exp2(largest - base)
        total = total * kept + tl.sum(weight, 1)
        v = tl.load(values + slot[:, None] * value_slot + channel[None, :], mask=filled, other=0.0)
        mixed = tl.dot(weight.to(v.dtype), v, mixed * kept[:, None], input_precision=PRECISION)
        largest = larger

    if WHOLE:
        mixed = mixed / total[:, None]
        kind = output.dtype.element_ty
        tl.store(output + at, mixed.to(kind), mask=real[:, None] & inside[None, :])
    else:
        place = line * chunks + chunk
        tl.store(summary + place * 2, largest, mask=real)
        tl.store(summary + place * 2 + 1, total, mask=real)
        to = place[:, None] * WIDTH + channel[None, :]
        tl.store(partial + to, mixed, mask=real[:, None] & inside[None, :])


@triton.jit(do_not_specialize=["count", "capacity", "chunks"])
def join_kernel(
    partial,
    summary,
    length,
    output,
    count,
    capacity,
    chunks,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNK_BLOCK: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Join the chunks of one query row in their order; grid (B T H)."""
    line = tl.program_id(0).to(tl.int64)
    end = tl.minimum(tl.load(length + line // (count * HEADS)) + count, capacity)
    used = tl.cdiv(end, CHUNK)
    every = tl.arange(0, CHUNK_BLOCK)
    maxima = tl.load(summary + (line * chunks + every) * 2, mask=every < used, other=float("-inf"))
    largest = tl.max(maxima, 0)
    channel = tl.arange(0, WIDTH_BLOCK)
    inside = channel < WIDTH
    mixed = tl.zeros([WIDTH_BLOCK], tl.float32)
    total = 0.0
    for start in range(0, used, AT_ONCE):
        chunk = start + tl.arange(0, AT_ONCE)
        place = line * chunks + chunk
        real = chunk < used
        maximum = tl.load(summary + place * 2, mask=real, other=float("-inf"))
        weight = tl.exp2(maximum - largest)
        total += tl.sum(weight * tl.load(summary + place * 2 + 1, mask=real, other=0.0), 0)
        part = tl.load(
            partial + place[:, None] * WIDTH + channel[None, :],
            mask=real[:, None] & inside[None, :],
            other=0.0,
        )
        mixed += tl.sum(weight[:, None] * part, 0)
    tl.store(
        output + line * WIDTH + channel, (mixed / total).to(output.dtype.element_ty), mask=inside
    )


@cache
def chunk_size(programs: int, capacity: int, processors: int) -> int:
    """Return how many slots a program reads.

    Small chunks spread a short context over the device; the number of programs is bounded,
    since a program behind the end still has to start and leave.

    Args:
        programs: Programs for every chunk: B G times the tiles of query rows.
        capacity: S.
        processors: The device's multiprocessors.
    """
    size = _SMALLEST_CHUNK
    limit = _PROGRAMS_PER_MULTIPROCESSOR * processors
    while size < _LARGEST_CHUNK and programs * -(-capacity // size) > limit:
        size *= 2
    return size


def tile_of(count: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the query rows of a program and its warps.

    Float32 is multiplied without tensor cores, for which a large tile has too few registers.

    Args:
        count: T.
        dtype: The queries' type.
    """
    if dtype == torch.float32:
        return 16, 8
    return (16, 4) if count <= MOST_ALIKE else (64, 8)


def key_block(width_block: int, itemsize: int) -> int:
    """Return how many slots a program loads at a time: 16 KiB of keys."""
    return max(16, min(128, _TILE_BYTES // (width_block * itemsize)))


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    length: Tensor,
    ancestors: Tensor | None = None,
    scale: float | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Attend from T new tokens to a row's cached slots and to each other, in at most two kernels.

    Args:
        query: [B, T, H, D].
        keys: [B, G, S, D]; H / G query heads share one.
        values: [B, G, S, D].
        length: [B] int32, cached tokens of each row before the T new ones.
        ancestors: [T, W] bool: whether new token i sees slot `length + T - W + w`. Every slot
            before these W is visible to all; columns whose slot would be negative are ignored.
            None: new token i sees the new tokens up to itself.
        scale: Of the products; 1 / sqrt(D) where None.
        first: [B] int32, the number of leading slots that nobody may see (padding); None for 0.

    Returns:
        [B, T, H, D].
    """
    rows, count, heads, width = query.shape
    groups, capacity = keys.shape[1], keys.shape[2]
    assert heads % groups == 0 and keys.stride(3) == values.stride(3) == 1
    assert length.dtype == torch.int32
    query = query.contiguous()
    width_block = triton.next_power_of_2(width)
    row_block, warps = tile_of(count, query.dtype)
    tiles = -(-count * (heads // groups) // row_block)
    chunk = chunk_size(rows * groups, capacity, multiprocessors(query.device))
    chunks = -(-capacity // chunk)
    output = torch.empty_like(query)
    partial = summary = output
    if chunks > 1:
        lines = rows * count * heads
        partial = query.new_empty(lines, chunks, width, dtype=torch.float32)
        summary = query.new_empty(lines, chunks, 2, dtype=torch.float32)
    seen = length if ancestors is None else ancestors.contiguous().view(torch.uint8)
    attend_kernel[(tiles, chunks, rows * groups)](
        query,
        keys,
        values,
        length,
        length if first is None else first,
        seen,
        output,
        partial,
        summary,
        (width**-0.5 if scale is None else scale) * LOG2_E,
        count,
        0 if ancestors is None else ancestors.shape[1],
        capacity,
        chunks,
        *keys.stride()[:3],
        *values.stride()[:3],
        HEADS=heads,
        GROUPS=groups,
        WIDTH=width,
        WIDTH_BLOCK=width_block,
        ROW_BLOCK=row_block,
        KEY_BLOCK=key_block(width_block, query.element_size()),
        CHUNK=chunk,
        WHOLE=chunks == 1,
        TREE=ancestors is not None,
        PADDED=first is not None,
        PRECISION=precision(query.dtype),
        num_warps=warps,
        num_stages=2,
        **OPTIONS,
    )
    if chunks > 1:
        join_kernel[(rows * count * heads,)](
            partial,
            summary,
            length,
            output,
            count,
            capacity,
            chunks,
            HEADS=heads,
            WIDTH=width,
            WIDTH_BLOCK=width_block,
            CHUNK=chunk,
            CHUNK_BLOCK=triton.next_power_of_2(chunks),
            AT_ONCE=_JOINED_AT_ONCE,
            num_warps=4,
            **OPTIONS,
        )
    return output
