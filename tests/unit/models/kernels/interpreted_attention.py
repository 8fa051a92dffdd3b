"""The attention kernels against their definition; run by test_interpreted.py."""

from __future__ import annotations

import pytest
import torch

from specbench.models.kernels import attention
from tests.unit.models.kernels import reference
from tests.unit.models.kernels.interpreting import assert_agrees, error_of, mutant

POISON = 1e4


def inputs(lengths, count, heads, groups, width, slots, dtype=torch.float32):
    """Random queries and a cache whose unwritten slots would spoil any result."""
    torch.manual_seed(sum(lengths) + count)
    rows = len(lengths)
    query = torch.randn(rows, count, heads, width).to(dtype)
    store = torch.randn(2, 3, rows, groups, slots, width).to(dtype)
    for row, length in enumerate(lengths):
        store[:, :, row, :, length + count :] = POISON
    keys, values = store[0, 1], store[1, 1]  # a layer's views, as a cache hands them out
    return query, keys, values, torch.tensor(lengths, dtype=torch.int32)


def random_tree(count, width):
    """Random ancestors among W slots, every token seeing itself."""
    torch.manual_seed(count * width)
    seen = torch.rand(count, width) < 0.4
    seen[torch.arange(count), width - count + torch.arange(count)] = True
    return seen


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("lengths", "count", "heads", "groups", "width", "slots"),
    [
        ([0], 1, 4, 2, 64, 40),
        ([127], 1, 4, 4, 64, 300),
        ([128], 1, 8, 1, 64, 300),
        ([299], 1, 6, 2, 80, 300),
        ([0], 5, 3, 1, 64, 129),
        ([63], 2, 8, 2, 128, 129),
        pytest.param([284], 16, 4, 4, 64, 300, marks=pytest.mark.slow),
        pytest.param([100], 16, 5, 1, 80, 140, marks=pytest.mark.slow),
        ([0, 250], 3, 7, 7, 64, 256),
        pytest.param([7, 128, 0], 4, 4, 1, 32, 200, marks=pytest.mark.slow),
        pytest.param([120], 17, 4, 2, 64, 200, marks=pytest.mark.slow),
        pytest.param([1], 64, 2, 1, 64, 140, marks=pytest.mark.slow),
        ([2100], 2, 2, 1, 64, 2200),  # more chunks than are joined at once
    ],
)
def test_chains(lengths, count, heads, groups, width, slots, dtype):
    asked = inputs(lengths, count, heads, groups, width, slots, dtype)
    assert_agrees(attention.decode_attention(*asked), reference.decode_attention(*asked))


def test_chains_in_half_precision():
    asked = inputs([125], 5, 4, 2, 64, 300, torch.float16)
    assert_agrees(attention.decode_attention(*asked), reference.decode_attention(*asked))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("lengths", "count", "width"),
    [
        ([60], 4, 4),
        ([125], 6, 6),
        ([130], 3, 9),
        ([2], 3, 9),  # two of the six earlier columns stand before the first slot
        ([40, 126], 5, 12),
    ],
)
def test_trees_also_those_fed_in_parts(lengths, count, width, dtype):
    asked = inputs(lengths, count, 4, 2, 64, 300, dtype)
    tree = random_tree(count, width)
    got = attention.decode_attention(*asked, tree)
    assert_agrees(got, reference.decode_attention(*asked, tree))


@pytest.mark.slow
def test_the_widest_tree():
    asked = inputs([20], 257, 2, 1, 64, 300)
    tree = random_tree(257, 257)
    assert_agrees(
        attention.decode_attention(*asked, tree), reference.decode_attention(*asked, tree)
    )


def test_padding_is_hidden_and_the_scale_is_used():
    asked = inputs([30, 200], 3, 4, 2, 64, 300)
    first = torch.tensor([11, 150], dtype=torch.int32)
    for tree in (None, random_tree(3, 5)):
        got = attention.decode_attention(*asked, tree, 0.3, first)
        assert_agrees(got, reference.decode_attention(*asked, tree, 0.3, first))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_has_the_same_bits_alone_and_among_others(dtype):
    query, keys, values, _ = inputs([120], 16, 4, 2, 64, 300, dtype)
    together = attention.decode_attention(
        query, keys, values, torch.tensor([120], dtype=torch.int32)
    )
    for token in (0, 8, 15):
        length = torch.tensor([120 + token], dtype=torch.int32)
        alone = attention.decode_attention(query[:, token : token + 1], keys, values, length)
        assert torch.equal(alone[:, 0], together[:, token])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("slot[None, :] <= cached + token[:, None]", "slot[None, :] < cached + token[:, None]"),
        ("slot[None, :] <= cached + token[:, None]", "slot[None, :] <= cached"),
        ("slot - (cached + count - tree_width)", "slot - (cached + count - tree_width + 1)"),
        ("(column < 0)[None, :] | (seen != 0)", "(seen != 0)"),
        ("(slot >= hidden)", "(slot > hidden)"),
        ("total = total * kept + tl.sum(weight, 1)", "total = total + tl.sum(weight, 1)"),
        ("mixed * kept[:, None], input_precision", "mixed, input_precision"),
        ("used = tl.cdiv(end, CHUNK)", "used = end // CHUNK"),
        ("weight = tl.exp2(maximum - largest)", "weight = tl.exp2(maximum * 0)"),
        ("range(0, used, AT_ONCE)", "range(0, 1, AT_ONCE)"),
        ("token = member // SHARED", "token = member // SHARED * 0"),
        ("group * SHARED + member % SHARED", "group * SHARED"),
    ],
)
def test_a_broken_kernel_is_seen(old, new, tmp_path):
    broken = mutant(attention, old, new, tmp_path)
    errors = []
    for lengths, count, groups, slots in (([30, 200], 3, 2, 300), ([2100], 2, 1, 2200)):
        asked = inputs(lengths, count, 4, groups, 64, slots)
        first = torch.tensor([11, 150][: len(lengths)], dtype=torch.int32)
        for tree in (None, random_tree(count, count + 2)):
            expected = reference.decode_attention(*asked, tree, None, first)
            errors.append(error_of(broken.decode_attention(*asked, tree, None, first), expected))
    assert max(errors) > 1e-3


def test_chunks_bound_the_number_of_programs():
    assert attention.chunk_size(8, 4096, 132) == 128
    assert attention.chunk_size(32, 4096, 132) == 128
    assert attention.chunk_size(32, 8192, 132) == 256
    assert attention.chunk_size(96, 1 << 20, 132) == 1024
