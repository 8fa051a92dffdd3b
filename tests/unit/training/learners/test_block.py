"""One product over a text drafts from each of its places as a draft of its own would."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from specbench.training.learners.block import Block, Keys

CONFIG = LlamaConfig(
    hidden_size=16,
    intermediate_size=24,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    num_hidden_layers=1,
    vocab_size=11,
    attn_implementation="eager",
)
TOKENS, DEPTH = 7, 3


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block(CONFIG, 16).double()


def test_the_first_step_is_a_block_of_transformers_without_its_first_norm(block: Block) -> None:
    theirs = LlamaDecoderLayer(CONFIG, 0).double()
    theirs.load_state_dict(block.state_dict(), strict=False)
    theirs.input_layernorm = torch.nn.Identity()
    x = torch.randn(2, TOKENS, 16, dtype=torch.float64)
    rotary = LlamaRotaryEmbedding(CONFIG)(x, torch.arange(TOKENS)[None])
    causal = torch.full((TOKENS, TOKENS), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    whole = theirs(x, attention_mask=causal, position_embeddings=rotary)
    whole = whole[0] if isinstance(whole, tuple) else whole
    torch.testing.assert_close(block(x, x, []), whole, atol=1e-6, rtol=0)


def test_unrolled_steps_are_drafts_from_each_place(block: Block) -> None:
    """Step i at place t against the block fed the true entries up to t and i drafted ones."""
    entries = torch.randn(DEPTH, 1, TOKENS, 16, dtype=torch.float64)
    keys: Keys = []
    made = [block(step, step, keys) for step in entries]
    for place in range(TOKENS):
        row = torch.cat([entries[0][:, : place + 1], entries[1:, :, place].transpose(0, 1)], 1)
        alone = block(row, row, [])
        for step in range(DEPTH):
            torch.testing.assert_close(made[step][:, place], alone[:, place + step])


def test_a_step_does_not_see_other_places_drafts_or_later_tokens(block: Block) -> None:
    entries = torch.randn(DEPTH, 1, TOKENS, 16, dtype=torch.float64)

    def last(changed: torch.Tensor) -> torch.Tensor:
        keys: Keys = []
        return [block(step, step, keys) for step in changed][-1][:, 3]

    before = last(entries)
    moved = entries.clone()
    moved[0, :, 4:] += 1.0
    moved[1:, :, :3] += 1.0
    moved[1:, :, 4:] += 1.0
    torch.testing.assert_close(last(moved), before)
    moved[1, :, 3] += 1.0
    assert not torch.allclose(last(moved), before)
