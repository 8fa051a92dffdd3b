"""Graph, compiled and eager forwards on a GPU agree, replay after rollback, and never wait."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from specbench.clock import clock_for
from specbench.decoding.request import Request, StopTokens
from specbench.decoding.tree import TreeMask
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.base import LayerSkip, Taps, View
from specbench.models.decoder import LeanDecoder
from specbench.models.engines import run_by
from specbench.models.pair import ModelPair
from specbench.rng import Streams
from specbench.schema.build import instantiate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

VOCAB = 512
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.15, torch.float16: 0.03}
"""Greatest difference of logits of standard deviation near one.

Float32 sums in another order. A bfloat16 number keeps 8 bits: each of a dozen roundings on the
way through the layers moves a value by up to 2^-9 of itself.
"""
_SHAPE = dict(
    vocab_size=VOCAB,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=4096,
    initializer_range=0.05,
)
CONFIGS = {"llama": LlamaConfig(**_SHAPE), "qwen3": Qwen3Config(**_SHAPE)}
TREE = TreeMask.from_parents((-1, -1, 0, 0, 1, 2, 4, 4))
LARGE = TreeMask.from_parents(tuple((i - 1) // 2 for i in range(80)))


def lean(name, dtype, noise=0.0):
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32).eval()
    for parameter in module.parameters():
        parameter.data += noise * torch.randn_like(parameter)
    return LeanDecoder.of(module, name, torch.device("cuda:0"), dtype)


def tokens(count, seed=0, rows=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (rows, count), generator=generator).cuda()


@contextmanager
def no_waiting():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def script(model, cache):
    """Feed a prompt, chains, trees and single tokens; yield logits and states."""
    rows = len(cache.lengths)
    yield model.forward(tokens(100, 1, rows), cache, View(last=1))
    for number in range(3):
        yield model.forward(tokens(1, number, rows), cache, View(last=1))
        yield model.forward(tokens(8, number, rows), cache)
        base = cache.lengths[0]
        yield model.forward(tokens(9, number, rows), cache, View(mask=TREE))
        cache.keep([base] * rows, [[0, 2, 5]] * rows)
        base = cache.lengths[0]
        yield model.forward(tokens(81, number, rows), cache, View(mask=LARGE))
        cache.keep([base] * rows, [[0, 1, 3, 7]] * rows)
        taps = Taps((0, -1))
        yield model.forward(tokens(5, number, rows), cache, View(taps=taps))
        yield from taps.states
        cache.truncate([cache.lengths[0] - 4] * rows)
        yield model.forward(
            tokens(2, number, rows), cache, View(skip=LayerSkip(frozenset(), frozenset({1})))
        )


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("engine", ["graph", "kernels"])
def test_graphs_agree_with_the_eager_forward(name, dtype, rows, engine):
    eager = lean(name, dtype)
    model = run_by(eager, engine)
    cache = model.new_cache(rows, 2048)
    expected = list(script(eager, eager.new_cache(rows, 2048)))
    direct = list(script(model, cache))
    model.settle()
    assert any(use.replay for use in cache.storage.uses.values()), "nothing was captured"
    cache.truncate([0] * rows)
    replayed = list(script(model, cache))
    for want, first, second in zip(expected, direct, replayed, strict=True):
        for got in (first, second):
            torch.testing.assert_close(got, want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_steps_agree_with_the_eager_forward(dtype):
    eager = lean("llama", dtype)
    model = run_by(eager, "compile")
    caches = [eager.new_cache(1, 1024), model.new_cache(1, 1024)]
    for each, cache in zip((eager, model), caches, strict=True):
        each.forward(tokens(100), cache, View(last=1))
    for number in range(4):
        if number == 2:
            model.settle()
            assert sum(use.replay is not None for use in caches[1].storage.uses.values()) == 2
        for fed, mask in ((tokens(1, number), None), (tokens(9, number), TREE)):
            got = [
                each.forward(fed, cache, View(mask=mask))
                for each, cache in zip((eager, model), caches, strict=True)
            ]
            torch.testing.assert_close(got[1], got[0], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("engine", ["graph", "kernels"])
def test_rows_behind_padding_agree_with_the_eager_forward(engine):
    eager = lean("llama", torch.float32)
    model = run_by(eager, engine)
    caches = [each.new_cache(2, 1024) for each in (eager, model)]
    for each, cache in zip((eager, model), caches, strict=True):
        cache.padding = (0, 30)
        each.forward(tokens(70, rows=2), cache, View(last=1))
    for number in range(4):
        if number == 2:
            model.settle()
        for fed, mask in ((tokens(1, number, 2), None), (tokens(9, number, 2), TREE)):
            got = [
                each.forward(fed, cache, View(mask=mask))
                for each, cache in zip((eager, model), caches, strict=True)
            ]
            torch.testing.assert_close(got[1], got[0], atol=2e-4, rtol=2e-4)


def test_logits_outlive_the_next_replay():
    model = run_by(lean("llama", torch.bfloat16), "graph")
    cache = model.new_cache(1, 1024)
    for count in (10, 1, 1):
        model.forward(tokens(count), cache)
    model.settle()
    first = model.forward(tokens(1, 1), cache)
    held = first.clone()
    model.forward(tokens(1, 2), cache)
    assert torch.equal(first, held)


@pytest.mark.parametrize("engine", ["graph", "kernels"])
def test_no_forward_waits_for_the_device(engine):
    model = run_by(lean("qwen3", torch.bfloat16), engine)
    cache = model.new_cache(1, 2048)
    for _ in range(2):
        list(script(model, cache))
        cache.truncate([0])
        model.settle()
    fed = {count: tokens(count) for count in (100, 1, 9)}
    model.forward(fed[100], cache, View(last=1))
    with no_waiting():
        for _ in range(3):
            model.forward(fed[1], cache, View(last=1))
            base = cache.lengths[0]
            model.forward(fed[9], cache, View(mask=TREE))
            cache.keep([base], [[0, 2, 5]])
            cache.truncate([base])


@pytest.mark.parametrize("method", ["token_sd", "pld", "static_tree", "dynamic_tree", "lookahead"])
def test_greedy_tokens_in_float32_are_plain_decodings(method):
    law = Law(temperature=0.0)
    bodies = [lean("llama", torch.float32), lean("llama", torch.float32, noise=0.005)]
    pairs = {
        engine: ModelPair(engine, *(run_by(body, engine) for body in bodies))
        for engine in ("eager", "graph")
    }
    expected = decode(pairs["eager"], "ar", law)
    for _ in range(3):
        for pair in pairs.values():
            pair.settle(200)
            assert decode(pair, "ar", law) == expected
            assert decode(pair, method, law) == expected


def decode(models, method, law):
    decoder = instantiate(load_method(method)["decoder"])
    decoder.prepare(models)
    request = Request(
        prompt=tuple(range(3, 40)),
        max_new_tokens=64,
        law=law,
        streams=Streams(0, "request"),
        stop=StopTokens(frozenset()),
    )
    return decoder.generate(models, request, clock_for(models.target.device)).tokens
