"""What only a GPU can show: the kernels on the device and in graphs."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.unit.models.kernels import reference

if torch.cuda.is_available():
    from specbench.models.kernels import attention, matmul

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

TOLERANCES = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def device():
    return torch.device("cuda", torch.cuda.current_device())


def error_of(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def inputs(device, dtype, lengths, count, heads=32, groups=8, width=128, slots=2048):
    torch.manual_seed(count)
    rows = len(lengths)
    query = torch.randn(rows, count, heads, width, device=device).to(dtype)
    keys, values = torch.randn(2, rows, groups, slots, width, device=device).to(dtype)
    return query, keys, values, torch.tensor(lengths, dtype=torch.int32, device=device)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("count", [1, 8, 16, 17, 64, 257])
@pytest.mark.parametrize("tree", [False, True])
def test_attention(device, dtype, count, tree):
    ancestors = torch.eye(count, device=device).bool() if tree else None
    asked = (*inputs(device, dtype, [0, 1000, 1500], count), ancestors)
    got = attention.decode_attention(*asked)
    assert error_of(got, reference.decode_attention(*asked)) <= TOLERANCES[dtype]
    assert torch.equal(got, attention.decode_attention(*asked))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_token_has_the_same_bits_alone_and_among_others(device, dtype):
    query, keys, values, length = inputs(device, dtype, [700], 16)
    together = attention.decode_attention(query, keys, values, length)
    for token in range(16):
        own = query[:, token : token + 1]
        alone = attention.decode_attention(own, keys, values, length + token)
        assert torch.equal(alone[:, 0], together[:, token])


def test_a_graph_follows_the_length_on_the_device(device):
    query, keys, values, length = inputs(device, torch.bfloat16, [5], 4)
    attention.decode_attention(query, keys, values, length)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = attention.decode_attention(query, keys, values, length)
    for cached in (5, 130, 2000):
        length.fill_(cached)
        graph.replay()
        expected = reference.decode_attention(query, keys, values, length)
        assert error_of(got, expected) <= TOLERANCES[torch.bfloat16]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_products(device, dtype, gated):
    torch.manual_seed(0)
    weight = torch.randn(2048, 1024, device=device).to(dtype)
    plan = matmul.plan_of((2048, 1024), dtype, device, gated=gated)
    name = "matmul_silu_mul" if gated else "few_token_matmul"
    multiply = partial(getattr(matmul, name), plan=plan)
    x = torch.randn(16, 1024, device=device).to(dtype)
    together = multiply(x, weight)
    assert error_of(together, getattr(reference, name)(x, weight)) <= 2 * TOLERANCES[dtype]
    for token in (0, 3, 15):
        alone = multiply(x[token : token + 1], weight)
        assert torch.equal(alone[0], together[token])


def test_nothing_waits_for_the_device(device):
    query, keys, values, length = inputs(device, torch.bfloat16, [9], 4)
    attention.decode_attention(query, keys, values, length)
    torch.cuda.set_sync_debug_mode("error")
    try:
        attention.decode_attention(query, keys, values, length)
        reference.decode_attention(query, keys, values, length)
    finally:
        torch.cuda.set_sync_debug_mode("default")
