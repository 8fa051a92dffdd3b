"""The fast kernels compute what the plain ones do, in every dtype and for awkward inputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from specbench.models.linear import PackedLinear, PlainLinear, _packable, linear
from specbench.models.norm import rms_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("shape", [(1, 7), (3, 64), (2, 5, 4, 16)])
def test_rms_norm_equals_its_definition(dtype, scale, shape):
    torch.manual_seed(0)
    x = (torch.randn(shape, dtype=torch.float64) * scale + 0.5 * scale).to(dtype)
    weight = torch.randn(shape[-1], dtype=torch.float64).to(dtype)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = exact * weight.double()
    got = rms_norm(x, weight, 1e-5).double()
    precision = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1.6e-2}[dtype]
    torch.testing.assert_close(got, expected, atol=precision, rtol=precision)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tokens", [1, 5, 33])
def test_projections_equal_the_library(dtype, bias, tokens):
    torch.manual_seed(0)
    weight = torch.randn(24, 40).to(dtype)
    offset = torch.randn(24).to(dtype) if bias else None
    x, residual = torch.randn(tokens, 40).to(dtype), torch.randn(tokens, 24).to(dtype)
    kinds = [PlainLinear(weight, offset), linear(weight, offset)]
    exact = F.linear(x.double(), weight.double(), None if offset is None else offset.double())
    precision = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-2}[dtype]
    with torch.inference_mode():
        for projection in kinds:
            got = projection(x).double()
            torch.testing.assert_close(got, exact, atol=precision, rtol=precision)
            added = projection.add(residual, x).double()
            wanted = exact + residual.double()
            torch.testing.assert_close(added, wanted, atol=2 * precision, rtol=precision)


def test_only_dtypes_that_pack_correctly_are_packed():
    for dtype in (torch.float32, torch.bfloat16):
        expected = PackedLinear if dtype in _packable() else PlainLinear
        assert isinstance(linear(torch.ones(8, 8, dtype=dtype)), expected)
    assert isinstance(linear(torch.ones(8, 8, dtype=torch.float64)), PlainLinear)
