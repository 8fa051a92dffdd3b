"""Every kernel compiles for an A100 and for an H100 or H200, with the launches used there.

No GPU is needed: see ahead.py. What a kernel computes is test_interpreted.py's question.
"""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET", "0") == "1":
    pytest.skip("Triton interprets in this process", allow_module_level=True)

from specbench.models.kernels import attention, matmul, pointwise  # noqa: E402
from specbench.models.norm import HeadNorm  # noqa: E402
from tests.unit.models.kernels.ahead import SHARED_BYTES, device_of  # noqa: E402

SPILL_BYTES = 64
"""A stack of this size holds a few addresses; a tile without registers takes kilobytes."""


def asked(count, heads, groups, width, dtype, capacity=4096):
    query = torch.empty(1, count, heads, width, dtype=dtype)
    keys = torch.empty(2, 1, groups, capacity, width, dtype=dtype)
    return query, keys[0], keys[1], torch.zeros(1, dtype=torch.int32)


def copies_of(compiled):
    """Return the instructions that copy from device memory to shared memory."""
    lines = compiled.assembly.splitlines()
    return [line for line in lines if "cp.async" in line and "shared.global" in line]


def check(compiled, arch, expected, spilled=SPILL_BYTES):
    assert [each.name for each in compiled] == expected
    for each in compiled:
        assert each.shared_bytes <= SHARED_BYTES[arch], each
        assert each.registers <= 255 and each.local_bytes <= spilled, each[:4]


@pytest.fixture(params=[80, 90], ids=["sm_80", "sm_90"])
def arch(request):
    return request.param


def test_attention_of_a_chain_copies_16_bytes_at_a_time(arch, monkeypatch, tmp_path):
    with device_of(arch, monkeypatch, tmp_path) as compiled:
        attention.decode_attention(*asked(1, 32, 8, 128, torch.bfloat16))
    check(compiled, arch, ["attend_kernel", "join_kernel"])
    copies = copies_of(compiled[0])
    assert copies and all("cp.async.cg" in line and "0x10" in line for line in copies)
    assert "mma.sync" in compiled[0].assembly


def test_a_small_cache_needs_one_kernel(arch, monkeypatch, tmp_path):
    with device_of(arch, monkeypatch, tmp_path) as compiled:
        attention.decode_attention(*asked(1, 32, 8, 128, torch.bfloat16, capacity=128))
    check(compiled, arch, ["attend_kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("count", "heads", "groups", "width"),
    [(1, 32, 8, 64), (16, 32, 8, 128), (64, 32, 32, 128), (8, 20, 20, 80), (1, 8, 1, 256)],
)
def test_attention(count, heads, groups, width, dtype, arch, monkeypatch, tmp_path):
    inputs = asked(count, heads, groups, width, dtype)
    tree = torch.ones(count, count + 4, dtype=torch.bool)
    with device_of(arch, monkeypatch, tmp_path) as compiled:
        attention.decode_attention(*inputs)
        attention.decode_attention(*inputs, tree, None, inputs[3])
    check(compiled, arch, ["attend_kernel", "join_kernel"] * 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_pointwise_kernels(dtype, arch, monkeypatch, tmp_path):
    query, keys, values, length = asked(1, 32, 8, 128, dtype)
    qkv, table = torch.empty(1, 48 * 128, dtype=dtype), torch.empty(4096, 1, 128, dtype=dtype)
    x, weight = torch.empty(1, 4096, dtype=dtype), torch.empty(40, 128, dtype=dtype)
    with device_of(arch, monkeypatch, tmp_path) as compiled:
        for norm in (None, HeadNorm(weight, 1e-5), HeadNorm(weight, 1e-5, weight)):
            pointwise.rotate_and_store(qkv, table, table, keys, values, length, length, norm)
        pointwise.norm(x, x[0], 1e-5)
        pointwise.silu_mul(x)
    check(compiled, arch, ["rotate_kernel"] * 3 + ["norm_kernel"] + ["silu_kernel"])


def test_a_product_streams_16_bytes_at_a_time_through_tensor_cores(arch, monkeypatch, tmp_path):
    x, weight = torch.empty(1, 512).bfloat16(), torch.empty(512, 512).bfloat16()
    plan = matmul.TILE
    with device_of(arch, monkeypatch, tmp_path) as compiled:
        matmul.few_token_matmul(x, weight, x, plan=plan)
        matmul.few_token_matmul(x, weight, x, plan=plan._replace(split=4))
    check(compiled, arch, ["stream_kernel", "stream_kernel", "join_kernel"])
    for each in compiled[:2]:
        assert each.shared_bytes <= 61_440
        copies = copies_of(each)
        assert copies and all("cp.async.cg" in line and "0x10" in line for line in copies)
        assert "mma.sync" in each.assembly


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gated", [False, True])
def test_the_tile_of_every_type(gated, dtype, arch, monkeypatch, tmp_path):
    plan = matmul.TILE._replace(inputs=256 // dtype.itemsize)
    x, weight = torch.empty(16, 512, dtype=dtype), torch.empty(1024, 512, dtype=dtype)
    with device_of(arch, monkeypatch, tmp_path) as compiled:
        for split in (1, 4):
            if gated:
                matmul.matmul_silu_mul(x, weight, plan=plan._replace(split=split))
            else:
                matmul.few_token_matmul(x, weight, plan=plan._replace(split=split))
    # Float32 is multiplied without tensor cores and may spill.
    spilled = 512 if dtype == torch.float32 and gated and arch == 80 else SPILL_BYTES
    check(compiled, arch, ["stream_kernel", "stream_kernel", "join_kernel"], spilled)


def test_one_machine_code_serves_every_number_of_tokens(monkeypatch, tmp_path):
    weight = torch.empty(512, 512).bfloat16()
    with device_of(90, monkeypatch, tmp_path) as compiled:
        for tokens in (1, 2, 16):
            x = torch.empty(tokens, 512).bfloat16()
            matmul.few_token_matmul(x, weight, plan=matmul.TILE)
        for count in (1, 2, 16):
            attention.decode_attention(*asked(count, 32, 8, 128, torch.bfloat16))
    for kind in ("stream_kernel", "attend_kernel", "join_kernel"):
        assert len({each.assembly for each in compiled if each.name == kind}) == 1
