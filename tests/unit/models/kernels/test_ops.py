"""Steps out of our own kernels equal the lean decoder's, and a CPU refuses to run them."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.decoding.tree import TreeMask
from specbench.models import kernels
from specbench.models.base import View
from specbench.models.decoder import LeanDecoder
from specbench.models.ops import Ops
from specbench.models.static import StaticDecoder
from tests.unit.models import tiny_checkpoints
from tests.unit.models.kernels import reference
from tests.unit.models.recorded import Recorder

TREE = TreeMask.from_parents((-1, -1, 0, 0, 1, 2, 4, 4))


@pytest.fixture(params=["library", "kernels"])
def ops(request, monkeypatch):
    """Return operations; the kernels' are computed by their definitions."""
    if request.param == "library":
        return Ops()
    pytest.importorskip("triton", reason="Triton is not installed")
    from specbench.models.kernels import attention, matmul, ops, pointwise

    monkeypatch.setattr(attention, "decode_attention", reference.decode_attention)
    for name in ("rotate_and_store", "norm", "silu_mul"):
        monkeypatch.setattr(pointwise, name, getattr(reference, name))
    for name in ("few_token_matmul", "matmul_silu_mul"):
        monkeypatch.setattr(matmul, name, _planned(getattr(reference, name)))
    monkeypatch.setattr(matmul, "_DTYPES", (torch.float64,))
    return ops.KernelOps()


def _planned(function):
    def multiplied(*inputs, plan):
        assert plan is not None
        return function(*inputs)

    return multiplied


@pytest.mark.parametrize("name", ["llama3", "qwen3"])
def test_steps_equal_the_eager_forward(tmp_path, name, ops):
    path = tiny_checkpoints.write(tmp_path, name)
    module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    lean = LeanDecoder.of(module, name, torch.device("cpu"), torch.float64)
    recorder = Recorder()
    static = StaticDecoder(lean, ops, recorder)
    caches = [model.new_cache(2, 256) for model in (lean, static)]
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        if number == 3:
            static.settle()
        for count, mask in ((40 if number == 0 else 1, None), (9, TREE), (5, None)):
            tokens = torch.randint(0, tiny_checkpoints.VOCAB, (2, count), generator=generator)
            want, got = (
                model.forward(tokens, cache, View(mask=mask))
                for model, cache in zip((lean, static), caches, strict=True)
            )
            torch.testing.assert_close(got, want, atol=1e-11, rtol=1e-11)
            if mask is not None:
                for cache in caches:
                    cache.keep([cache.lengths[0] - 9] * 2, [[0, 2, 5]] * 2)
    assert sum(recorder.replays) >= 3


def test_a_cpu_has_no_kernels_and_says_why():
    assert "NVIDIA" in kernels.obstacle(torch.device("cpu"))


def test_an_old_gpu_has_no_kernels(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "compute capability" in kernels.obstacle(torch.device("cuda"))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype", "outputs", "split"),
    [
        ((4096, 4096), torch.bfloat16, 32, 2),
        ((28672, 4096), torch.bfloat16, 32, 1),
        ((4096, 4096), torch.float32, 32, 2),
        ((512, 40), torch.bfloat16, None, None),
        ((512, 512), torch.float64, None, None),
    ],
)
def test_a_plan_follows_from_weight_and_device(monkeypatch, shape, dtype, outputs, split, gated):
    matmul = pytest.importorskip("specbench.models.kernels.matmul", reason="Triton is missing")
    monkeypatch.setattr(matmul, "multiprocessors", lambda device: 132)
    rows = shape[0] * (2 if gated else 1)
    plan = matmul.plan_of.__wrapped__((rows, shape[1]), dtype, torch.device("cuda"), gated=gated)
    assert (plan and (plan.outputs, plan.split)) == (outputs and (outputs, split))
