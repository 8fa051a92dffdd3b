"""Rows of one length by padding on the left compute what each row computes alone."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.cache import KVCache
from specbench.decoding.tree import TreeMask
from specbench.models import lean_weights
from specbench.models.base import View
from specbench.models.decoder import LeanDecoder
from specbench.models.lean_weights import (
    Layer,
    Weights,
    causal_lm_weights,
    fused,
    halves_from_pairs,
    projection,
    rotary_tables,
)
from specbench.models.masks import MaskTable
from specbench.models.static import StaticDecoder
from tests.unit.models import tiny_checkpoints

CPU = torch.device("cpu")
LONG, SHORT = list(range(2, 13)), [40, 41, 42]
GAP = len(LONG) - len(SHORT)
NEXT = [50, 51, 52, 53, 54, 55, 56]
ARCHITECTURES = ["llama3", "qwen3", "mistral_window", "llama3 static", "qwen3 static"]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    made = {}

    def load(name):
        if name not in made:
            architecture, _, engine = name.partition(" ")
            path = tiny_checkpoints.write(folder, architecture)
            module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
            lean = LeanDecoder.of(module, name, CPU, torch.float64)
            made[name] = StaticDecoder(lean) if engine else lean
        return made[name]

    return load


def padded(model, prefill=(None,)):
    """Feed both prompts, the short one behind padding, in pieces; return the cache."""
    cache = model.new_cache(2, 64)
    cache.padding = (0, GAP)
    rows = torch.tensor([LONG, [7] * GAP + SHORT])
    cuts = [0, *(cut for cut in prefill if cut is not None), len(LONG)]
    for start, end in zip(cuts, cuts[1:], strict=False):
        logits = model.forward(rows[:, start:end], cache)
        assert logits.isfinite().all()
    return cache


def alone(model, tokens, **options):
    cache = model.new_cache(1, 64)
    return model.forward(torch.tensor([tokens]), cache, View(**options))[0]


def close(left, right):
    """Transformers' rotary angles are float32: a shift of all positions shows near 1e-6."""
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("prefill", [(None,), (3,), (5, 6, 9)], ids=str)
def test_prompts_steps_and_chunks_equal_rows_alone(model_of, name, prefill):
    model = model_of(name)
    cache = padded(model, prefill)
    got = []
    for start, end in ((0, 1), (1, 2), (2, 6), (6, 7)):
        chunk = torch.tensor([NEXT[start:end]] * 2)
        got.append(model.forward(chunk, cache))
    got = torch.cat(got, 1)
    for row, prompt in enumerate((LONG, SHORT)):
        close(got[row], alone(model, prompt + NEXT, last=len(NEXT)))
    cache.truncate([len(LONG) + 2] * 2)
    again = model.forward(torch.tensor([NEXT[2:]] * 2), cache)
    close(again, got[:, 2:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_trees_equal_rows_alone(model_of, name):
    model = model_of(name)
    cache = padded(model)
    mask = TreeMask.from_parents((-1, -1, 0, 1, 2))
    fed = torch.tensor([[30, 31, 32, 33, 34, 35]] * 2)
    for repeat in range(2):  # a mask that is met again comes from the table
        got = model.forward(fed, cache, View(mask=mask))
        for row, prompt in enumerate((LONG, SHORT)):
            close(got[row, 5], alone(model, [*prompt, 30, 31, 33, 35])[-1])
            close(got[row, 4], alone(model, [*prompt, 30, 32, 34])[-1])
        if not repeat:
            cache.truncate([len(LONG)] * 2)
    cache.keep([len(LONG)] * 2, [[0, 2, 4]] * 2)
    after = model.forward(torch.tensor([[9], [9]]), cache)
    for row, prompt in enumerate((LONG, SHORT)):
        close(after[row, -1], alone(model, [*prompt, 30, 32, 34, 9])[-1])


def test_rows_of_different_lengths_keep_their_padding(model_of):
    model = model_of("llama3")
    cache = padded(model)
    cache.truncate([len(LONG), len(LONG) - 1])
    got = model.forward(torch.tensor([[20, 21], [22, 23]]), cache)
    close(got[0], alone(model, [*LONG, 20, 21], last=2))
    close(got[1], alone(model, [*SHORT[:-1], 22, 23], last=2))


def test_the_first_tokens_of_a_padded_row_are_finite_one_by_one(model_of):
    """A padding slot that saw nothing would be undefined and poison whoever reads past it."""
    model = model_of("llama3")
    cache = padded(model, tuple(range(1, len(LONG))))
    after = model.forward(torch.tensor([[9], [9]]), cache)
    close(after[1, -1], alone(model, [*SHORT, 9])[-1])


def test_padding_that_is_seen_is_noticed(model_of):
    """Mutation: without the mask the short row differs, so the tests above can fail."""
    model = model_of("llama3")
    cache = padded(model)
    cache.padding = None
    got = model.forward(torch.tensor([[9], [9]]), cache)
    assert (got[1, -1] - alone(model, [*SHORT, 9])[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("length", [0, 1, 4])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_slot_sees_a_slot(length, count):
    """Attention over nothing is undefined in some kernels, and undefined values spread."""
    masks = MaskTable(32, torch.float32, CPU)
    chain = masks.chain(length, count)
    kept = chain.clone()
    mask = masks.padded((0, 5), (length, length), count, chain)
    assert mask.shape == (2, 1, count, length + count)
    assert (mask == 0).any(-1).all()
    for index in range(count):
        visible = (mask[1, 0, index] == 0).nonzero().flatten().tolist()
        own = length + index
        assert visible == (list(range(own + 1)) if own < 5 else list(range(5, own + 1)))
    assert torch.equal(chain, kept)


def test_no_mask_is_built_where_no_row_is_padded(model_of, monkeypatch):
    """A single step of equal rows costs no mask at all."""

    def refuse(*args):
        raise AssertionError("a mask was built")

    model = model_of("llama3")
    cache = model.new_cache(2, 64)
    cache.padding = (0, 0)
    assert cache.padding is None
    monkeypatch.setattr(MaskTable, "padded", refuse)
    monkeypatch.setattr(MaskTable, "chain", refuse)
    model.forward(torch.tensor([LONG, LONG]), cache)
    model.forward(torch.tensor([[3], [4]]), cache)


def test_the_padding_of_a_step_is_a_view_of_a_table():
    masks = MaskTable(32, torch.float32, CPU)
    first = masks.padded((0, 2), (5, 5), 1, None)
    second = masks.padded((0, 2), (6, 6), 1, None)
    assert first.data_ptr() == second.data_ptr()
    assert first.tolist() == [[[[0.0] * 6]], [[[-torch.inf] * 2 + [0.0] * 4]]]


def test_a_cache_forgets_padding_that_is_none():
    cache = KVCache(1, 2, 1, 4, 2, torch.float32, CPU)
    assert cache.padding is None
    cache.padding = [0, 3]
    assert cache.padding == (0, 3)
    cache.truncate([0, 0])
    assert cache.padding == (0, 3)
    cache.padding = None
    assert cache.padding is None


def test_a_head_over_a_slice_gives_the_logits_of_its_ids(model_of, tmp_path):
    path = tiny_checkpoints.write(tmp_path, "llama")
    module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    head = projection(module.lm_head.weight[20:30], device=CPU, dtype=torch.float64)
    whole = LeanDecoder.of(
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval(),
        "whole",
        CPU,
        torch.float64,
    )
    weights = lean_weights.body_weights(
        module.model, module.config, head=head, device=CPU, dtype=torch.float64, head_first=20
    )
    sliced = LeanDecoder(weights, "sliced")
    assert (sliced.vocab_size, sliced.weights.head_first, sliced.context) == (96, 20, 256)
    close(alone(sliced, LONG), alone(whole, LONG)[:, 20:30])


def test_rotating_pairs_is_rotating_halves_of_reordered_weights():
    """Interleaved rotary weights, written out, against the decoder's."""
    torch.manual_seed(0)
    heads, width, channels, count = 2, 8, 12, 5
    query, key, value = torch.randn(3, heads * width, channels, dtype=torch.float64)
    output = torch.randn(channels, heads * width, dtype=torch.float64)
    gate, up = torch.zeros(2, 4, channels, dtype=torch.float64)
    down = torch.zeros(channels, 4, dtype=torch.float64)
    embedding = torch.randn(9, channels, dtype=torch.float64)
    ones = torch.ones(channels, dtype=torch.float64)
    angles = torch.rand(16, width // 2, dtype=torch.float64) * 3
    cos, sin = rotary_tables(angles, CPU, torch.float64)
    cos[0], sin[0] = 0, 0
    options = {"device": CPU, "dtype": torch.float64}
    layer = Layer(
        attention_norm=ones,
        qkv=fused(
            [halves_from_pairs(query, width), halves_from_pairs(key, width), value], **options
        ),
        head_norm=None,
        output=projection(output, **options),
        feed_forward_norm=ones,
        gate_up=fused([gate, up], **options),
        down=projection(down, **options),
    )
    weights = Weights(
        embedding=embedding,
        layers=[layer],
        final_norm=ones,
        head=lambda x: x,
        cos=cos,
        sin=sin,
        heads=heads,
        groups=heads,
        epsilon=1e-6,
        head_first=0,
    )
    model = LeanDecoder(weights, "pairs")
    tokens = [3, 1, 4, 1, 5]
    got = alone(model, tokens)

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def rotate(x):
        pairs = torch.view_as_complex(x.reshape(count, heads, width // 2, 2).contiguous())
        turn = torch.polar(torch.ones_like(angles), angles)[:count, None].clone()
        turn[0] = 0
        return torch.view_as_real(pairs * turn).reshape(count, heads, width).transpose(0, 1)

    x = embedding[tokens]
    normed = norm(x)
    q, k = rotate(normed @ query.T), rotate(normed @ key.T)
    v = (normed @ value.T).view(count, heads, width).transpose(0, 1)
    scores = q @ k.transpose(1, 2) / width**0.5
    scores = scores.masked_fill(~torch.ones(count, count).tril().bool(), -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(count, -1)
    torch.testing.assert_close(got, norm(x + mixed @ output.T), atol=1e-9, rtol=1e-9)


def test_the_two_constructors_agree(tmp_path):
    path = tiny_checkpoints.write(tmp_path, "qwen3")

    def module():
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    whole = LeanDecoder.of(module(), "a", CPU, torch.float32)
    built = LeanDecoder(causal_lm_weights(module(), CPU, torch.float32), "a")
    assert torch.equal(alone(whole, LONG), alone(built, LONG))
