"""Cached, tree-masked, ragged and rolled-back forwards equal full recomputation."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.decoding.tree import TreeMask
from specbench.models.base import View
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.static import StaticDecoder
from tests.unit.models import tiny_checkpoints

CPU = torch.device("cpu")
ARCHITECTURES = sorted(tiny_checkpoints.configs())
CASES = [(name, "transformers") for name in ARCHITECTURES] + [
    (name, engine) for name in ARCHITECTURES if name != "gpt2" for engine in ("lean", "static")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def reference(folder):
    loaded = {}

    def load(name):
        if name not in loaded:
            path = tiny_checkpoints.write(folder, name)
            loaded[name] = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        return loaded[name]

    return load


def engine_of(reference, folder, name, engine):
    module = AutoModelForCausalLM.from_pretrained(
        tiny_checkpoints.write(folder, name), dtype=torch.float64
    ).eval()
    if engine == "transformers":
        return CausalLM(module, name)
    lean = LeanDecoder.of(module, name, CPU, torch.float64)
    return StaticDecoder(lean) if engine == "static" else lean


def full(module, tokens):
    with torch.inference_mode():
        return module(torch.tensor([tokens])).logits[0]


def close(left, right):
    """Transformers' norms compute in float32 whatever the dtype: agreement ends near 1e-5."""
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


def random_tokens(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, tiny_checkpoints.VOCAB, (count,), generator=generator).tolist()


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_prefill_steps_and_chunks_equal_full_recomputation(reference, folder, name, engine):
    model = engine_of(reference, folder, name, engine)
    tokens = random_tokens(40)
    expected = full(reference(name), tokens)
    cache = model.new_cache(1, 64)
    got = [model.forward(torch.tensor([tokens[:17]]), cache)[0]]
    for start, end in ((17, 18), (18, 19), (19, 24), (24, 25), (25, 40)):
        got.append(model.forward(torch.tensor([tokens[start:end]]), cache)[0])
    close(torch.cat(got), expected)
    assert cache.lengths == [40]


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_rolled_back_forward_equals_full_recomputation(reference, folder, name, engine):
    model = engine_of(reference, folder, name, engine)
    tokens, wrong = random_tokens(30), random_tokens(12, seed=9)
    cache = model.new_cache(1, 64)
    model.forward(torch.tensor([tokens[:20] + wrong]), cache)
    cache.truncate([20])
    got = model.forward(torch.tensor([tokens[20:]]), cache)[0]
    close(got, full(reference(name), tokens)[20:])


TREE = (-1, -1, 0, 0, 1, 2, 4, 4)


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_tree_masked_forward_and_kept_path_equal_full_recomputation(
    reference, folder, name, engine
):
    model = engine_of(reference, folder, name, engine)
    tokens = random_tokens(14)
    nodes = random_tokens(len(TREE), seed=3)
    mask = TreeMask.from_parents(TREE)
    cache = model.new_cache(1, 64)
    model.forward(torch.tensor([tokens[:-1]]), cache)
    got = model.forward(torch.tensor([tokens[-1:] + nodes]), cache, View(mask=mask))[0]
    for node in range(len(TREE)):
        path, parent = [], node
        while parent >= 0:
            path.insert(0, nodes[parent])
            parent = TREE[parent]
        close(got[node + 1], full(reference(name), tokens + path)[-1])
    cache.keep([len(tokens) - 1], [[0, 2, 5, 8]])
    kept = tokens + [nodes[1], nodes[4], nodes[7]]
    assert cache.lengths == [len(kept)]
    after = model.forward(torch.tensor([[7]]), cache)[0, -1]
    close(after, full(reference(name), [*kept, 7])[-1])


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_tree_fed_level_by_level_equals_the_tree_fed_at_once(reference, folder, name, engine):
    """A draft model sees its own earlier levels in the cache, and only its ancestors there."""
    model = engine_of(reference, folder, name, engine)
    prompt = list(range(2, 12))
    parents = (-1, -1, 0, 0, 1, 2, 4)
    tokens = torch.tensor([[20, 31, 32, 41, 42, 43, 51, 52]])
    whole = TreeMask.from_parents(parents)
    cache = model.new_cache(1, 64)
    model.forward(torch.tensor([prompt]), cache)
    expected = model.forward(tokens, cache, View(mask=whole))[0]
    cache.truncate([len(prompt)])
    rows, start = [], 0
    for level in (1, 2, 3, 2):
        end = start + level
        mask = TreeMask(whole.offsets[:end], whole.ancestors[start:end, :end])
        rows.append(model.forward(tokens[:, start:end], cache, View(mask=mask))[0])
        start = end
    close(torch.cat(rows), expected)
    again = model.new_cache(1, 64)
    model.forward(torch.tensor([prompt]), again)
    close(model.forward(tokens, again, View(mask=whole))[0], expected)


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_rows_of_different_lengths_equal_single_rows(reference, folder, name, engine):
    model = engine_of(reference, folder, name, engine)
    first, second = random_tokens(22), random_tokens(22, seed=5)
    cache = model.new_cache(2, 64)
    model.forward(torch.tensor([first[:18], second[:18]]), cache)
    cache.truncate([18, 11])
    chunk = torch.tensor([first[18:22], second[11:15]])
    got = model.forward(chunk, cache)
    close(got[0], full(reference(name), first[:22])[18:])
    close(got[1], full(reference(name), second[:15])[11:])
    mask = TreeMask.from_parents(TREE)
    nodes = random_tokens(len(TREE), seed=4)
    cache.truncate([19, 15])
    fed = torch.tensor([[first[19], *nodes], [second[15], *nodes]])
    got = model.forward(fed, cache, View(mask=mask))
    for row, prefix in ((0, first[:20]), (1, second[:16])):
        close(got[row, 8], full(reference(name), [*prefix, nodes[1], nodes[4], nodes[7]])[-1])
    cache.keep([19, 15], [[0, 2], [0, 1, 3]])
    assert cache.lengths == [21, 18]


def test_last_returns_only_the_last_logits(reference, folder):
    for engine in ("lean", "transformers"):
        model = engine_of(reference, folder, "llama", engine)
        tokens = random_tokens(12)
        cache = model.new_cache(1, 32)
        got = model.forward(torch.tensor([tokens]), cache, View(last=2))
        assert got.shape == (1, 2, tiny_checkpoints.VOCAB)
        close(got[0], full(reference("llama"), tokens)[-2:])


def test_stale_cache_row_is_noticed(reference, folder):
    """Mutation: forgetting to roll back changes the logits, so the tests above can fail."""
    model = engine_of(reference, folder, "llama", "lean")
    tokens = random_tokens(20)
    cache = model.new_cache(1, 64)
    model.forward(torch.tensor([tokens[:15] + [3]]), cache)
    got = model.forward(torch.tensor([tokens[15:]]), cache)[0, -1]
    assert (got - full(reference("llama"), tokens)[-1]).abs().max() > 1e-3


def test_logits_are_cut_to_the_common_vocabulary(reference, folder):
    model = engine_of(reference, folder, "llama", "lean")
    model.vocab_size = 80
    got = model.forward(torch.tensor([[1, 2, 3]]), model.new_cache(1, 8))
    assert got.shape == (1, 3, 80)
