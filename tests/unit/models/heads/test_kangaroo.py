"""Kangaroo's adapter: the published layout is read, and its logits are those of its arithmetic.

`published_adapter` states what kangaroo/adapter.py of github.com/Equationliu/Kangaroo computes; the
release's own module was not run.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from specbench.decoding.tree import TreeMask
from specbench.models.base import View
from tests.unit.models import tiny_checkpoints
from tests.unit.models.heads import published
from tests.unit.models.heads.published import GROUPS, HEADS, VOCAB, WIDTH
from tests.unit.models.heads.test_eagle import loaded, refusal

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": 88,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 1,
    "num_key_value_heads": GROUPS,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.28.1",
    "use_cache": True,
    "vocab_size": VOCAB,
}
"""The keys of the release's data/vicuna_7B_config.json, at a small size, and shared key heads."""

MASK = TreeMask.from_parents((-1, -1, 0, 0, 1))


def adapter_tensors(seed=0):
    draw = torch.Generator().manual_seed(seed)
    block = published.block("layers.0.", WIDTH, draw)
    tensors = {name: value for name, value in block.items() if "self_attn" in name}
    for name in ("norm.weight", "layers.0.input_layernorm.weight"):
        tensors[name] = 1 + 0.3 * torch.randn(WIDTH, generator=draw)
    return tensors


def published_adapter(tensors, states, positions, sees):
    """Return what the LM head reads: norm, attention, residual, norm."""
    t, x = published.doubled(tensors), states.double()
    normed = published.rms(x, t["layers.0.input_layernorm.weight"])
    x = x + published.attention(t, "layers.0.", normed, positions, sees, 10000.0)
    return published.rms(x, t["norm.weight"])


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tiny_checkpoints.write(tmp_path_factory.mktemp("target"), "llama")


@pytest.mark.parametrize("pickled", [True, False])
def test_logits_are_those_of_the_published_arithmetic(target, tmp_path, pickled):
    """A prompt, a state, and a tree below it, fed in three forwards with one cache."""
    tensors = adapter_tensors()
    _, head = loaded(target, published.write(tmp_path, CONFIG, tensors, pickled))
    states = torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(3))
    cache, got = head.new_cache(1, 64), []
    tree = View(mask=TreeMask(MASK.offsets, MASK.ancestors[1:]))
    for chosen, view in ((slice(0, 4), View()), (slice(4, 5), View()), (slice(5, 10), tree)):
        got.append(head.forward(states[None, chosen], cache, view)[0])
    sees = torch.ones(10, 10).tril().bool()
    sees[5:, 4:] = MASK.ancestors[1:]
    positions = torch.tensor([*range(5), *(4 + MASK.offsets[1:]).tolist()])
    expected = published_adapter(tensors, states, positions, sees)
    lm_head = load_file(target / "model.safetensors")["lm_head.weight"].double()
    torch.testing.assert_close(torch.cat(got), (expected @ lm_head.T).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_size": 64}, "its hidden width is 64 and the target's is 32"),
        ({"vocab_size": 100}, "its vocabulary is 100 and the target's is 96"),
        ({"num_hidden_layers": 2}, "it lacks the weight 'layers.1.input_layernorm.weight'"),
        ({"num_key_value_heads": 4}, "is 16 x 32 and not 32 x 32"),
    ],
)
def test_a_wrong_pairing_is_refused_before_weights_are_read(
    target, tmp_path, monkeypatch, changed, said
):
    monkeypatch.setattr("specbench.models.heads.base.read_tensors", None)
    assert said in refusal(target, tmp_path, CONFIG | changed, adapter_tensors())
