"""Products of a few tokens against their definitions; run by test_interpreted.py."""

from __future__ import annotations

import pytest
import torch

from specbench.models.kernels import matmul
from specbench.models.kernels.matmul import MatmulPlan
from tests.unit.models.kernels import reference
from tests.unit.models.kernels.interpreting import TOLERANCES, assert_agrees, error_of, mutant

PLANS = [
    MatmulPlan(16, 64, 1, 4, 3),
    MatmulPlan(32, 32, 4, 4, 3),
    MatmulPlan(64, 128, 2, 4, 3),
]
SOME = [*PLANS[:2], pytest.param(PLANS[2], marks=pytest.mark.slow)]


def inputs(tokens, outputs, inner, dtype):
    torch.manual_seed(tokens + outputs)
    x, weight = torch.randn(tokens, inner).to(dtype), torch.randn(outputs, inner).to(dtype)
    residual, bias = torch.randn(tokens, outputs).to(dtype), torch.randn(outputs).to(dtype)
    return x, weight, residual, bias


@pytest.mark.parametrize("plan", SOME)
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("tokens", "outputs", "inner"), [(1, 128, 256), (5, 70, 300), (16, 33, 90)]
)
@pytest.mark.parametrize("extras", [pytest.param(False, marks=pytest.mark.slow), True])
def test_products(tokens, outputs, inner, extras, dtype, plan):
    x, weight, residual, bias = inputs(tokens, outputs, inner, dtype)
    added = (residual, bias) if extras else (None, None)
    got = matmul.few_token_matmul(x, weight, *added, plan=plan)
    assert_agrees(got, reference.few_token_matmul(x, weight, *added))


@pytest.mark.parametrize("plan", SOME)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("extras", [pytest.param(False, marks=pytest.mark.slow), True])
def test_gated_products(extras, dtype, plan):
    x, weight, _, bias = inputs(3, 140, 300, dtype)
    weight = weight / 8
    bias = bias if extras else None
    got = matmul.matmul_silu_mul(x, weight, bias, plan=plan)
    assert_agrees(got, reference.matmul_silu_mul(x, weight, bias))


@pytest.mark.parametrize(("dtype", "plan"), [(torch.float32, PLANS[1]), (torch.bfloat16, PLANS[2])])
def test_a_token_has_the_same_bits_alone_and_among_others(dtype, plan):
    x, weight, residual, _ = inputs(16, 70, 300, dtype)
    together = matmul.few_token_matmul(x, weight, residual, plan=plan)
    for token in (0, 7, 8, 15):
        row = slice(token, token + 1)
        alone = matmul.few_token_matmul(x[row], weight, residual[row], plan=plan)
        assert torch.equal(alone[0], together[token])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(inner + step * IN < inputs)[None, :]", "(inner < inputs)[None, :]"),
        ("inner = split * steps * IN", "inner = split * 0"),
        ("for part in range(0, split):", "for part in range(1, split):"),
        ("up = stream + outputs.to(tl.int64) * inputs", "up = stream"),
        ("total_up += tl.load(of + outputs,", "total_up += tl.load(of,"),
        ("+= tl.load(residual + at, mask=keep", "+= 0 * tl.load(residual + at, mask=keep"),
        ("+= tl.load(bias + out,", "+= 0 * tl.load(bias + out,"),
        ("output + split.to(tl.int64) * tokens * outputs + at", "output + at"),
    ],
)
def test_a_broken_product_is_seen(old, new, tmp_path):
    broken = mutant(matmul, old, new, tmp_path)
    x, weight, residual, bias = inputs(3, 140, 300, torch.float32)
    gated = weight / 8
    errors = []
    for plan in PLANS[:2]:
        got = broken.few_token_matmul(x, weight, residual, bias, plan=plan)
        errors.append(error_of(got, reference.few_token_matmul(x, weight, residual, bias)))
        got = broken.matmul_silu_mul(x, gated, bias, plan=plan)
        errors.append(error_of(got, reference.matmul_silu_mul(x, gated, bias)))
    assert max(errors) > 1e-3
