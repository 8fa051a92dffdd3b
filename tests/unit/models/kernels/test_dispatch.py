"""Without a GPU the definitions serve, Triton is never imported, and the reason is told."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from specbench.models import kernels
from specbench.models.kernels import reference

CPU = torch.device("cpu")

PROGRAM = """
import sys
import torch
before = "triton" in sys.modules
from specbench.models import kernels
x = torch.ones(2, 4)
kernels.silu_mul(x), kernels.few_token_matmul(x, torch.ones(3, 4))
kernels.prepare([kernels.Projection(x)])
kernels.available(torch.device("cpu"))
print(before, "triton" in sys.modules)
"""


def test_a_cpu_runs_without_triton():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert before == after


def test_a_cpu_has_no_kernels_and_says_why():
    assert not kernels.available(CPU)
    assert "NVIDIA" in kernels.obstacle(CPU)


def test_an_old_gpu_has_no_kernels(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "compute capability" in kernels.obstacle.__wrapped__(torch.device("cuda"))


@pytest.mark.parametrize(
    ("outcome", "told"),
    [("silu_mul is off", "silu_mul is off"), (RuntimeError("no compiler\nmore"), "no compiler")],
)
def test_a_device_that_fails_its_trial_has_no_kernels(monkeypatch, outcome, told):
    trial = pytest.importorskip("specbench.models.kernels.trial", reason="Triton is missing")

    def failure(device):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(trial, "failure", failure)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.warns(UserWarning, match="plain torch replaces"):
        reason = kernels.obstacle.__wrapped__(torch.device("cuda"))
    assert told in reason and "\n" not in reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 16, 17])
def test_functions_are_their_definitions(dtype, tokens):
    torch.manual_seed(0)
    x, weight = torch.randn(tokens, 12).to(dtype), torch.randn(8, 12).to(dtype)
    residual, bias = torch.randn(tokens, 8).to(dtype), torch.randn(8).to(dtype)
    gate_bias = bias
    pairs = [
        (kernels.silu_mul(x), reference.silu_mul(x)),
        (
            kernels.few_token_matmul(x, weight, residual, bias),
            reference.few_token_matmul(x, weight, residual, bias),
        ),
        (
            kernels.matmul_silu_mul(x, weight, gate_bias),
            reference.matmul_silu_mul(x, weight, gate_bias),
        ),
        *zip(
            kernels.matmul_add_norm(x, weight, residual, bias, 1e-3),
            reference.matmul_add_norm(x, weight, residual, bias, 1e-3),
            strict=True,
        ),
        *zip(
            kernels.add_norm(x, x, weight[0], 1e-3),
            reference.add_norm(x, x, weight[0], 1e-3),
            strict=True,
        ),
    ]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for got, expected in pairs:
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
