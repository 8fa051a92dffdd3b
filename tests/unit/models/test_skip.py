"""Forwards that leave sublayers out, and hidden states handed out by a forward."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPTJConfig,
    GPTNeoXConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    SmolLM3Config,
    Starcoder2Config,
)

from specbench.decoding.tree import TreeMask
from specbench.models.base import Capability, LayerSkip, Taps, View
from specbench.models.blocks import BLOCK_NAMES
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.static import StaticDecoder
from specbench.models.table import TableModel, markov_table
from tests.unit.models import tiny_checkpoints

CPU = torch.device("cpu")
CASES = [
    ("llama", "lean"),
    ("qwen3", "lean"),
    ("mistral_window", "lean"),
    ("llama3", "static"),
    ("qwen3", "static"),
    ("llama", "transformers"),
    ("qwen3", "transformers"),
    ("gpt2", "transformers"),
]
SKIPS = {
    "attention": LayerSkip(attention=frozenset({1})),
    "feed_forward": LayerSkip(feed_forward=frozenset({0, 1})),
    "both": LayerSkip(frozenset({1, 2}), frozenset({0, 2})),
    "all": LayerSkip(frozenset(range(3)), frozenset(range(3))),
}
TREE = (-1, -1, 0, 0, 1, 2, 4, 4)
_TINY = dict(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=0,
    eos_token_id=1,
    initializer_range=0.4,
)
OTHERS = {
    "gemma": GemmaConfig(**_TINY, num_key_value_heads=2, head_dim=8),
    "gemma2": Gemma2Config(**_TINY, num_key_value_heads=2, head_dim=8),
    "gemma3_text": Gemma3TextConfig(**_TINY, num_key_value_heads=2, head_dim=8),
    "gpt_neox": GPTNeoXConfig(**_TINY),
    "gptj": GPTJConfig(vocab_size=48, n_positions=64, n_embd=32, n_layer=3, n_head=4, rotary_dim=4),
    "olmo2": Olmo2Config(**_TINY, num_key_value_heads=2),
    "phi": PhiConfig(**_TINY, num_key_value_heads=2),
    "phi3": Phi3Config(**_TINY, num_key_value_heads=2),
    "smollm3": SmolLM3Config(**_TINY, num_key_value_heads=2),
    "starcoder2": Starcoder2Config(**_TINY, num_key_value_heads=2),
}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skip")

    def module_of(name):
        path = tiny_checkpoints.write(folder, name)
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()

    made = {}

    def model_of(name, engine):
        if (name, engine) not in made:
            module = module_of(name)
            if engine == "transformers":
                made[name, engine] = CausalLM(module, name)
            else:
                lean = LeanDecoder.of(module, name, CPU, torch.float64)
                made[name, engine] = StaticDecoder(lean) if engine == "static" else lean
        return made[name, engine]

    model_of.module = module_of
    return model_of


def tokens_of(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, tiny_checkpoints.VOCAB, (1, count), generator=generator)


def without(module, skip):
    """Return the logits of a module whose skipped sublayers are multiplied by zero."""
    names = BLOCK_NAMES[module.config.model_type]

    def nothing(_, __, output):
        if isinstance(output, tuple):
            return (output[0] * 0.0, *output[1:])
        return output * 0.0

    handles = []
    for index, block in enumerate(module.get_submodule(names.blocks)):
        for indices, attribute in (
            (skip.attention, names.attention),
            (skip.feed_forward, names.feed_forward),
        ):
            if index in indices:
                handles.append(getattr(block, attribute).register_forward_hook(nothing))

    def logits(tokens):
        with torch.inference_mode():
            return module(tokens).logits

    return logits, handles


def close(left, right):
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("skip", SKIPS.values(), ids=SKIPS)
@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_skipped_sublayer_leaves_the_residual_stream_as_it_is(load, name, engine, skip):
    tokens = tokens_of(24)
    reference, _ = without(load.module(name), skip)
    model = load(name, engine)
    cache = model.new_cache(1, 40)
    close(model.forward(tokens, cache, View(skip=skip)), reference(tokens))
    assert cache.lengths == [24]
    cache.truncate([0])
    chunks = [
        model.forward(part, cache, View(skip=skip)) for part in tokens.split([11, 1, 4, 8], 1)
    ]
    close(torch.cat(chunks, 1), reference(tokens))


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_skipping_nothing_is_the_plain_forward_to_the_bit(load, name, engine):
    model, tokens = load(name, engine), tokens_of(20)
    plain = model.forward(tokens, model.new_cache(1, 32))
    assert torch.equal(model.forward(tokens, model.new_cache(1, 32), View(skip=LayerSkip())), plain)
    model.forward(tokens, model.new_cache(1, 32), View(skip=SKIPS["both"]))
    assert torch.equal(model.forward(tokens, model.new_cache(1, 32)), plain), "a skip must end"


UNTOUCHED = 123456.0
"""Finite: the memory of a dead static cache is used again, and its attention reads every slot."""


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_skipped_attention_is_not_computed_and_writes_nothing(load, name, engine):
    model, tokens = load(name, engine), tokens_of(9)
    cache = model.new_cache(1, 16)
    for keys in cache.keys:
        keys.fill_(UNTOUCHED)
    model.forward(tokens, cache, View(skip=LayerSkip(attention=frozenset({1}))))
    assert (cache.keys[1] == UNTOUCHED).all()
    assert not (cache.keys[0][:, :, :9] == UNTOUCHED).any()


def test_a_skipped_feed_forward_is_not_computed(load):
    lean = load("llama", "lean")
    calls = []
    layer = lean.weights.layers[1]

    def counting(x, inner=layer.gate_up):
        calls.append(x)
        return inner(x)

    object.__setattr__(layer, "gate_up", counting)
    lean.forward(tokens_of(3), lean.new_cache(1, 8), View(skip=SKIPS["feed_forward"]))
    assert not calls
    lean.forward(tokens_of(3), lean.new_cache(1, 8))
    assert len(calls) == 1
    library = load("gpt2", "transformers")
    library._module.transformer.h[1].mlp.register_forward_hook(lambda *a: calls.append(a))
    library.forward(tokens_of(3), library.new_cache(1, 8), View(skip=SKIPS["feed_forward"]))
    assert len(calls) == 1


@pytest.mark.parametrize("skip", SKIPS.values(), ids=SKIPS)
@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_draft_in_the_targets_cache_leaves_no_trace_after_verification(load, name, engine, skip):
    model, tokens = load(name, engine), tokens_of(20)
    plain, drafted = model.new_cache(1, 40), model.new_cache(1, 40)
    for cache in (plain, drafted):
        model.forward(tokens[:, :14], cache)
    for token in tokens[:, 14:18].split(1, 1):
        model.forward(token + 1, drafted, View(skip=skip))
    drafted.truncate([14])
    expected = model.forward(tokens[:, 14:], plain)
    assert torch.equal(model.forward(tokens[:, 14:], drafted), expected)
    for left, right in zip(plain.keys + plain.values, drafted.keys + drafted.values, strict=True):
        assert torch.equal(left[:, :, :20], right[:, :, :20])


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_the_draft_reads_the_full_models_prefix(load, name, engine):
    """Self-drafting attends to keys of the whole model, not to those of the skipped one."""
    model, tokens, skip = load(name, engine), tokens_of(16), SKIPS["feed_forward"]
    shared, own = model.new_cache(1, 32), model.new_cache(1, 32)
    model.forward(tokens[:, :15], shared)
    model.forward(tokens[:, :15], own, View(skip=skip))
    left = model.forward(tokens[:, 15:], shared, View(skip=skip))
    assert (left - model.forward(tokens[:, 15:], own, View(skip=skip))).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_trees_positions_and_skipping_together(load, name, engine):
    """Each node of a skipped tree is its own path, fed as a chain with the same skip."""
    model, skip = load(name, engine), SKIPS["both"]
    prompt, nodes = tokens_of(14), tokens_of(len(TREE), seed=3)
    cache = model.new_cache(1, 40)
    model.forward(prompt[:, :-1], cache)
    fed = torch.cat([prompt[:, -1:], nodes], 1)
    got = model.forward(fed, cache, View(mask=TreeMask.from_parents(TREE), skip=skip))[0]
    for node in range(len(TREE)):
        path, parent = [], node
        while parent >= 0:
            path.insert(0, int(nodes[0, parent]))
            parent = TREE[parent]
        cache.truncate([13])
        chain = torch.cat([prompt[:, -1:], torch.tensor([path])], 1)
        close(got[node + 1], model.forward(chain, cache, View(skip=skip))[0, -1])


@pytest.mark.parametrize("skip", [None, SKIPS["both"]], ids=["plain", "skip"])
@pytest.mark.parametrize(("name", "engine"), CASES)
def test_hidden_states_are_those_of_the_blocks_and_of_the_head(load, name, engine, skip):
    model, tokens = load(name, engine), tokens_of(12)
    module = load.module(name)
    names, seen = BLOCK_NAMES[module.config.model_type], {}
    reference, _ = without(module, skip or LayerSkip())
    for index, block in enumerate(module.get_submodule(names.blocks)):
        block.register_forward_hook(
            lambda _, __, out, i=index: seen.update({i: out[0] if isinstance(out, tuple) else out})
        )
    module.get_output_embeddings().register_forward_pre_hook(
        lambda _, args: seen.update({-1: args[0]})
    )
    expected = reference(tokens)
    for last in (0, 1, 5):
        taps = Taps((-1, 0, 2))
        logits = model.forward(
            tokens, model.new_cache(1, 20), View(last=last, skip=skip, taps=taps)
        )
        close(logits, expected[:, -last:])
        for layer, state in zip(taps.layers, taps.states, strict=True):
            close(state, seen[layer][:, -last:])
        taps = Taps((-1, 0, 2), every=True)
        logits = model.forward(
            tokens, model.new_cache(1, 20), View(last=last, skip=skip, taps=taps)
        )
        close(logits, expected[:, -last:])
        for layer, state in zip(taps.layers, taps.states, strict=True):
            close(state, seen[layer])


def test_taps_change_no_logits_and_end_with_their_forward(load):
    for name, engine in CASES:
        model, tokens = load(name, engine), tokens_of(7)
        plain = model.forward(tokens, model.new_cache(1, 8))
        taps = Taps((1, -1))
        assert torch.equal(model.forward(tokens, model.new_cache(1, 8), View(taps=taps)), plain)
        states = taps.states
        model.forward(tokens + 1, model.new_cache(1, 8))
        assert taps.states is states


@pytest.mark.parametrize("name", OTHERS)
def test_every_listed_architecture_skips_and_taps_as_its_blocks_say(name):
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(OTHERS[name], dtype=torch.float64).eval()
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model = CausalLM(module, name)
    assert model.capabilities == frozenset(Capability) - {Capability.FEATURES}
    tokens = tokens_of(9) % 48
    for skip in SKIPS.values():
        taps = Taps((-1, 1))
        got = model.forward(tokens, model.new_cache(1, 16), View(skip=skip, taps=taps))
        reference, handles = without(module, skip)
        close(got, reference(tokens))
        for handle in handles:
            handle.remove()
        assert [state.shape for state in taps.states] == [(1, 9, 32)] * 2


def test_every_listed_architecture_is_tested():
    assert set(BLOCK_NAMES) == set(OTHERS) | {"llama", "mistral", "qwen2", "qwen3", "gpt2"}


def test_an_unknown_block_offers_no_skipping():
    config = OPTConfig(
        vocab_size=48, hidden_size=32, num_hidden_layers=2, ffn_dim=32, num_attention_heads=4
    )
    assert CausalLM.able(config) == frozenset({Capability.TREE_MASK})
    model = CausalLM(AutoModelForCausalLM.from_config(config).eval(), "opt")
    assert model.capabilities == frozenset({Capability.TREE_MASK})


def test_a_table_model_has_a_law_of_its_own_for_skipped_forwards():
    plain, skipped = markov_table(1, 4, 0), markov_table(1, 4, 1)
    model = TableModel(plain, 4, skipped=skipped)
    tokens = torch.tensor([[0, 1, 2]])

    def logits(skip):
        return model.forward(tokens, model.new_cache(1, 3), View(skip=skip))[0, -1]

    assert torch.equal(logits(None), plain((2,)))
    assert torch.equal(logits(LayerSkip()), plain((2,)))
    assert torch.equal(logits(SKIPS["attention"]), skipped((2,)))
