"""Every form of attention computes what the kernel computes with grouped heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from specbench.models import attention
from specbench.models.attention import attend

WIDTH, CACHED = 16, 70
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def tensors(rows, heads, groups, count, dtype):
    """Return queries as a projection lays them out, and views of a larger cache."""
    generator = torch.Generator().manual_seed(heads * groups + count)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    queries = normal(rows, count, heads, WIDTH).transpose(1, 2)
    keys, values = (normal(rows, groups, CACHED + 30, WIDTH)[:, :, :CACHED] for _ in range(2))
    return queries, keys, values


def grouped(queries, keys, values, visible=None):
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, enable_gqa=queries.shape[1] != keys.shape[1]
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (8, 4), (4, 4), (4, 1)])
@pytest.mark.parametrize("count", [1, 5, 11])
@pytest.mark.parametrize("masked", ["", "shared", "by row", "by head"])
def test_every_form_is_grouped_attention(dtype, heads, groups, count, masked):
    queries, keys, values = tensors(2, heads, groups, count, dtype)
    shape = {
        "shared": (count, CACHED),
        "by row": (2, 1, count, CACHED),
        "by head": (2, heads, count, CACHED),
    }
    visible = wide = None
    if masked:
        hidden = torch.rand(shape[masked], generator=torch.Generator().manual_seed(1)) < 0.4
        visible = torch.zeros(shape[masked], dtype=dtype).masked_fill(hidden, -torch.inf)
        wide = visible.double()
    expected = grouped(queries.double(), keys.double(), values.double(), wide)
    got = attend(queries, keys, values, visible)
    assert got.shape == (2, heads, count, WIDTH) and got.dtype == dtype
    assert (got.double() - expected).abs().max() < TOLERANCE[dtype]


def test_the_first_prompt_is_causal_and_a_scale_is_kept():
    queries, keys, values = tensors(1, 4, 2, 8, torch.float32)
    keys, values = keys[:, :, :8], values[:, :, :8]
    hidden = torch.ones(8, 8).triu(1).bool()
    visible = torch.zeros(8, 8).masked_fill(hidden, -torch.inf)
    expected = grouped(2 * queries, keys, values, visible)
    got = attend(queries, keys, values, causal=True, scale=2 * WIDTH**-0.5)
    assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("heads", "groups", "count", "dtype", "threads", "asked"),
    [
        (9, 3, 1, torch.bfloat16, 8, (3, 3)),  # heads of a group are the queries of one
        (9, 3, 1, torch.float16, 8, (3, 3)),
        (4, 4, 1, torch.bfloat16, 1, (4, 2)),  # the one query twice
        (4, 4, 1, torch.float16, 1, (4, 1)),
        (9, 3, 1, torch.float32, 1, (3, 3)),
        (9, 3, 1, torch.float32, 2, (9, 1)),  # three groups leave a thread idle
        (8, 4, 1, torch.float32, 2, (4, 2)),
        (9, 3, 11, torch.bfloat16, 1, (9, 11)),  # several tokens stay as they are
    ],
)
def test_the_form_is_what_was_measured_to_be_fastest(
    heads, groups, count, dtype, threads, asked, monkeypatch
):
    seen = []
    forward = F.scaled_dot_product_attention

    def kernel(queries, *rest, **options):
        seen.append((tuple(queries.shape[1:3]), options["enable_gqa"]))
        return forward(queries, *rest, **options)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", kernel)
    monkeypatch.setattr(attention.torch, "get_num_threads", lambda: threads)
    attend(*tensors(1, heads, groups, count, dtype))
    assert seen == [(asked, asked[0] != groups)]
