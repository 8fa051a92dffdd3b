"""The definitions of the kernels agree with the library and with the lean decoder's own parts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from specbench.decoding.tree import TreeMask
from specbench.models.masks import MaskTable
from specbench.models.norm import HeadNorm, rms_norm
from tests.unit.models.kernels import reference

CLOSE = {"atol": 1e-12, "rtol": 1e-12}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def numbers(*shape):
    return torch.randn(shape, dtype=torch.float64)


def attended(query, keys, values, mask, end):
    """Attend with the library over the slots before `end`; [B, T, H, D]."""
    return F.scaled_dot_product_attention(
        query.transpose(1, 2), keys[:, :, :end], values[:, :, :end], mask, enable_gqa=True
    ).transpose(1, 2)


@pytest.mark.parametrize(("length", "count", "heads", "groups"), [(0, 4, 4, 4), (7, 3, 6, 2)])
def test_a_chain_is_the_library_with_the_mask_of_chains(length, count, heads, groups):
    query, keys, values = numbers(1, count, heads, 16), *numbers(2, 1, groups, 30, 16)
    mask = MaskTable(30, torch.float64, query.device).chain(length, count)
    got = reference.decode_attention(query, keys, values, torch.tensor([length], dtype=torch.int32))
    expected = attended(query, keys, values, mask, length + count)
    torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("length", [6, 11])
def test_a_tree_fed_in_parts_is_the_library_with_the_mask_of_trees(length):
    whole = TreeMask.from_parents((-1, -1, 0, 0, 1))
    count = 3
    mask = TreeMask(whole.offsets, whole.ancestors[-count:])
    query, keys, values = numbers(1, count, 4, 16), *numbers(2, 1, 2, 30, 16)
    table = MaskTable(30, torch.float64, query.device).tree(mask, length)
    got = reference.decode_attention(
        query, keys, values, torch.tensor([length], dtype=torch.int32), mask.ancestors
    )
    expected = attended(query, keys, values, table, length + count)
    torch.testing.assert_close(got, expected, **CLOSE)


def test_rows_have_their_own_lengths_and_padding():
    query, keys, values = numbers(2, 2, 4, 8), *numbers(2, 2, 2, 20, 8)
    length, first = torch.tensor([[9, 15], [0, 4]], dtype=torch.int32)
    together = reference.decode_attention(query, keys, values, length, None, 0.5, first)
    for row in range(2):
        begin, cached = int(first[row]), int(length[row])
        alone = attended(
            query[row : row + 1] * 0.5 * 8**0.5,
            keys[row : row + 1, :, begin:],
            values[row : row + 1, :, begin:],
            MaskTable(30, torch.float64, query.device).chain(cached - begin, 2),
            cached - begin + 2,
        )
        torch.testing.assert_close(together[row : row + 1], alone, **CLOSE)


@pytest.mark.parametrize("kind", ["none", "rms", "layer"])
def test_rotation_is_the_lean_decoders(kind):
    rows, count, heads, groups, width = 2, 3, 4, 2, 16
    qkv = numbers(rows * count, (heads + 2 * groups) * width)
    cos, sin = numbers(2, 40, 1, width)
    weight, bias = numbers(2, heads + groups, width)
    norm = {
        "none": None,
        "rms": HeadNorm(weight, 1e-3),
        "layer": HeadNorm(weight, 1e-3, bias),
    }[kind]
    length, offsets = torch.tensor([5, 11], dtype=torch.int32), torch.tensor([0, 1, 1])
    keys, values = numbers(2, rows, groups, 20, width)
    before = keys.clone(), values.clone()
    query = reference.rotate_and_store(qkv, cos, sin, keys, values, length, offsets, norm)

    split = qkv.view(rows, count, -1, width)
    positions = length[:, None] + offsets
    x = split[:, :, : heads + groups]
    x = x if norm is None else norm(x)
    x = torch.addcmul(x * cos[positions], x.roll(width // 2, -1), sin[positions])
    torch.testing.assert_close(query, x[:, :, :heads], **CLOSE)
    for row, start in enumerate(length.tolist()):
        slots = slice(start, start + count)
        stored = keys[row, :, slots], values[row, :, slots]
        new = x[row, :, heads:], split[row, :, heads + groups :]
        for one, other in zip(stored, new, strict=True):
            torch.testing.assert_close(one, other.transpose(0, 1), **CLOSE)
        for now, then in zip((keys, values), before, strict=True):
            assert torch.equal(now[row, :, :start], then[row, :, :start])
            assert torch.equal(now[row, :, start + count :], then[row, :, start + count :])


def test_sums_norms_and_products():
    x, residual, weight, bias = numbers(3, 10), numbers(3, 6), numbers(6, 10), numbers(6)
    product = F.linear(x, weight, bias) + residual
    got = reference.few_token_matmul(x, weight, residual, bias)
    torch.testing.assert_close(got, product, **CLOSE)
    normed = reference.norm(product, weight[:, 0], 1e-3)
    torch.testing.assert_close(normed, rms_norm(product, weight[:, 0], 1e-3), **CLOSE)
    gates, ups = F.linear(x, weight, bias).chunk(2, -1)
    got = reference.matmul_silu_mul(x, weight, bias)
    torch.testing.assert_close(got, F.silu(gates) * ups, **CLOSE)


def test_bfloat16_is_rounded_once():
    x, weight = numbers(2, 300).bfloat16(), numbers(8, 300).bfloat16()
    exact = (x.double() @ weight.double().t()).bfloat16()
    assert torch.equal(reference.few_token_matmul(x, weight), exact)
