"""Norms, rotations and activations against their definitions; run by test_interpreted.py."""

from __future__ import annotations

import pytest
import torch

from specbench.models.kernels import pointwise
from specbench.models.norm import HeadNorm
from tests.unit.models.kernels import reference
from tests.unit.models.kernels.interpreting import TOLERANCES, assert_agrees, error_of, mutant

UNTOUCHED = 7.0


def tables(positions, width, dtype):
    angles = torch.arange(positions)[:, None, None] / 10 ** torch.linspace(0, 3, width // 2)
    cos = torch.cat([angles.cos(), angles.cos()], -1)
    sin = torch.cat([-angles.sin(), angles.sin()], -1)
    cos[3] = sin[3] = 0  # a position that is silenced
    return cos.to(dtype), sin.to(dtype)


def rotated(module, lengths, count, heads, groups, width, dtype, kind, tree=False):
    """Return queries, and keys and values of the layer that was written and its neighbours."""
    torch.manual_seed(count + heads)
    rows = len(lengths)
    qkv = torch.randn(rows * count, (heads + 2 * groups) * width).to(dtype)
    store = torch.full((2, 3, rows, groups, 40, width), UNTOUCHED).to(dtype)
    weight, bias = torch.randn(2, heads + groups, width).to(dtype)
    norm = {
        "none": None,
        "rms": HeadNorm(weight, 1e-2),
        "layer": HeadNorm(weight, 1e-2, bias),
    }[kind]
    offsets = (torch.arange(count) + 1) // 2 if tree else None
    length = torch.tensor(lengths, dtype=torch.int32)
    cos, sin = tables(60, width, dtype)
    query = module.rotate_and_store(qkv, cos, sin, store[0, 1], store[1, 1], length, offsets, norm)
    return query, store


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", ["none", "rms", "layer"])
@pytest.mark.parametrize(
    ("lengths", "count", "heads", "groups", "width", "tree"),
    [
        ([0], 1, 4, 2, 64, False),
        ([39], 1, 3, 3, 80, False),
        ([2, 30], 5, 6, 1, 32, False),
        ([3, 0, 17], 4, 4, 2, 64, True),
    ],
)
def test_rotation(lengths, count, heads, groups, width, tree, kind, dtype):
    asked = (lengths, count, heads, groups, width, dtype, kind, tree)
    query, store = rotated(pointwise, *asked)
    expected_query, expected_store = rotated(reference, *asked)
    assert_agrees(query, expected_query)
    assert_agrees(store, expected_store)
    assert torch.equal(store == UNTOUCHED, expected_store == UNTOUCHED)


def test_a_token_behind_the_capacity_writes_nothing():
    layers = torch.zeros(2, 2, 1, 3, 8, 32)
    keys, values = layers[:, 0]
    cos, sin = tables(60, 32, torch.float32)
    pointwise.rotate_and_store(
        torch.ones(3, 9 * 32), cos, sin, keys, values, torch.tensor([6], dtype=torch.int32)
    )
    written = layers.abs().sum(-1) > 0
    assert bool(written[:, 0, :, :, 6:].all())
    assert not bool(written[:, 0, :, :, :6].any()) and not bool(written[:, 1].any())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", [(1, 48), (3, 300), (2, 1024)])
def test_norm(shape, dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(shape).to(dtype) * 3, torch.randn(shape[1]).to(dtype)
    assert_agrees(pointwise.norm(x, weight, 1e-3), reference.norm(x, weight, 1e-3))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", [(1, 10), (3, 2700)])
def test_silu_mul(shape, dtype):
    torch.manual_seed(0)
    gate_up = torch.randn(shape).to(dtype) * 4
    assert_agrees(pointwise.silu_mul(gate_up), reference.silu_mul(gate_up))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(channel + WIDTH // 2) % WIDTH", "channel"),
        ("position = cached + tl.load(offsets + index)", "position = slot"),
        ("slot = cached + index", "slot = cached"),
        ("mean = tl.sum(x, 0) / WIDTH", "mean = 0.0"),
        ("y = y - mean", "y = y"),
        ("x += y * tl.load(sin", "x -= y * tl.load(sin"),
        ("(head - HEADS) * key_group", "0 * key_group"),
        ("group * value_group", "0 * value_group"),
        (
            "y = y * spread * tl.load(weight + head * WIDTH + partner",
            "y = y * tl.load(weight + head * WIDTH + partner",
        ),
    ],
)
def test_a_broken_rotation_is_seen(old, new, tmp_path):
    broken = mutant(pointwise, old, new, tmp_path)
    asked = ([3, 17], 4, 4, 2, 64, torch.float32, "layer", True)
    pairs = zip(rotated(broken, *asked), rotated(reference, *asked), strict=True)
    assert max(error_of(got, expected) for got, expected in pairs) > 1e-3
