"""The library's registries are ours for the time of a forward, and its own again behind it."""

from __future__ import annotations

import pytest
import torch
from transformers import masking_utils
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from specbench.decoding.tree import TreeMask
from specbench.errors import ModelError
from specbench.models import library_masks
from specbench.models.base import View
from specbench.models.causal_lm import CausalLM
from tests.unit.models.architectures import CASES, Case, model_of, module_of


def test_nothing_of_ours_stays_in_the_library_even_behind_an_error():
    model = model_of(CASES["olmo2"])
    before = dict(ALL_ATTENTION_FUNCTIONS), dict(masking_utils.ALL_MASK_ATTENTION_FUNCTIONS)
    cache = model.new_cache(1, 8)
    model.forward(torch.tensor([[1, 2]]), cache)
    with pytest.raises(IndexError):
        model.forward(torch.tensor([[10_000]]), cache)
    after = dict(ALL_ATTENTION_FUNCTIONS), dict(masking_utils.ALL_MASK_ATTENTION_FUNCTIONS)
    assert after == before


@pytest.mark.parametrize("count", [1, 5])
def test_our_attention_is_the_librarys(count):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, count, 8, generator=generator)
    key, value = torch.randn(2, 1, 2, 9, 8, generator=generator).unbind(0)
    mask = torch.zeros(1, 1, count, 9)
    mask[..., 3] = -torch.inf
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    library = ALL_ATTENTION_FUNCTIONS["sdpa"]
    for given in (None, mask) if count == 1 else (mask,):
        expected, _ = library(module, query, key, value, given, scaling=0.3)
        got, _ = library_masks._attention(module, query, key, value, given, scaling=0.3)
        torch.testing.assert_close(got, expected)


def test_windows_count_positions_and_not_slots():
    """Mutation: with slots for positions, deep branches would lose sight of the prompt early."""
    model = model_of(CASES["gpt_oss"])
    module = module_of(CASES["gpt_oss"])
    prompt = list(range(2, 12))
    parents = (-1,) * 6
    cache = model.new_cache(1, 64)
    model.forward(torch.tensor([prompt[:-1]]), cache)
    fed = torch.tensor([[prompt[-1], 31, 32, 33, 34, 35, 36]])
    got = model.forward(fed, cache, View(mask=TreeMask.from_parents(parents)))[0]
    with torch.inference_mode():
        expected = module(torch.tensor([[*prompt, 36]])).logits[0, -1]
    torch.testing.assert_close(got[-1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("rwkv", dict(vocab_size=96, hidden_size=32, num_hidden_layers=2)),
        ("recurrent_gemma", dict(vocab_size=96, hidden_size=32, num_attention_heads=4)),
    ],
)
def test_a_state_outside_of_the_cache_is_refused_by_name(kind, changes):
    with pytest.raises(ModelError, match="does not run behind") as caught:
        model_of(Case(kind, dict(num_hidden_layers=3) | changes, base={}))
    assert kind in caught.value.why


def test_layers_of_an_unknown_kind_are_refused_before_weights_are_read():
    config = CASES["olmo3"].config
    config.layer_types = ["full_attention", "indexed_attention"]
    with pytest.raises(ModelError, match="cannot be decoded") as caught:
        CausalLM.check(config, "new")
    assert "indexed_attention" in caught.value.why


def test_a_module_that_makes_its_own_masks_is_refused_where_order_matters(monkeypatch):
    model = model_of(CASES["gpt2"])
    cache = model.new_cache(1, 16)
    model.forward(torch.tensor([[1, 2]]), cache)
    never = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(library_masks.Sight, "asked", never, raising=False)
    with pytest.raises(ModelError, match="does not run behind"):
        model.forward(torch.tensor([[3, 4]]), cache, View(mask=TreeMask.from_parents((-1,))))
