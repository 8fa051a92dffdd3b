"""Compiled steps agree with the lean decoder; on a CPU they are compiled and not captured."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from specbench.decoding.tree import TreeMask
from specbench.models import compiled as compiled_module
from specbench.models.base import View
from specbench.models.compiled import missing_compiler
from specbench.models.decoder import LeanDecoder
from specbench.models.engines import run_by
from specbench.models.linear import PackedLinear
from specbench.models.ops import CompilerOps
from specbench.models.static import StaticDecoder

CPU = torch.device("cpu")
TREE = TreeMask.from_parents((-1, -1, 0))


@pytest.fixture(scope="module")
def lean():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
    )
    module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return LeanDecoder.of(module, "tiny", CPU, torch.float32)


def compare(lean, model):
    """Feed a prompt and trees to both; settle amid it; compare what they say of every tree."""
    caches = [lean.new_cache(1, 128), model.new_cache(1, 128)]
    tokens = torch.arange(20)[None]
    for each, cache in zip((lean, model), caches, strict=True):
        each.forward(tokens, cache, View(last=1))
    for number in range(4):
        if number == 2:
            model.settle()
        got = [
            each.forward(tokens[:, number : number + 4], cache, View(mask=TREE))
            for each, cache in zip((lean, model), caches, strict=True)
        ]
        torch.testing.assert_close(got[1], got[0], atol=1e-4, rtol=1e-4)
        for cache in caches:
            cache.keep([cache.lengths[0] - 4], [[0, 2]])
    return caches[1]


def test_what_a_compiler_gets_computes_the_same(lean):
    """The same operations, packed projections closed, before any compiler has seen them."""
    assert isinstance(lean.weights.layers[0].qkv, PackedLinear), "else nothing is closed here"
    model = StaticDecoder(lean, CompilerOps())
    assert not isinstance(model._layers[0].qkv, PackedLinear)
    assert model.sizes == lean.sizes
    compare(lean, model)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_step_computes_the_same(lean):
    model = run_by(lean, "compile")
    assert model.engine == "lean compile"
    cache = compare(lean, model)
    assert [s.tokens for s, use in cache.storage.uses.items() if use.replay] == [4]


def test_a_missing_compiler_is_named(monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def refuse():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    assert missing_compiler(CPU) is None
    monkeypatch.setattr(compiled_module, "find_spec", lambda name: None)
    assert "Triton is not installed" in missing_compiler(torch.device("cuda"))
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", refuse)
    assert "C++ compiler" in missing_compiler(CPU)
