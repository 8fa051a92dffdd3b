"""Small random checkpoints of several architectures, written in the published format."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair

VOCAB = 96
_SHAPE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=256,
    bos_token_id=0,
    eos_token_id=1,
    initializer_range=0.4,
)


def configs() -> dict[str, PreTrainedConfig]:
    """Return one configuration for each architecture under test."""
    llama3_rope = dict(
        rope_type="llama3",
        rope_theta=10000.0,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )
    return {
        "llama": LlamaConfig(**_SHAPE, num_key_value_heads=4),
        "llama3": LlamaConfig(**_SHAPE, num_key_value_heads=2, rope_parameters=llama3_rope),
        "qwen2": Qwen2Config(**_SHAPE, num_key_value_heads=2),
        "qwen3": Qwen3Config(**_SHAPE, num_key_value_heads=2, head_dim=16),
        "mistral": MistralConfig(**_SHAPE, num_key_value_heads=2, sliding_window=None),
        "mistral_window": MistralConfig(**_SHAPE, num_key_value_heads=2, sliding_window=9),
        "gpt2": GPT2Config(
            vocab_size=VOCAB,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=256,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.4,
        ),
    }


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer over the words w0 ... w95."""
    words = {"<s>": 0, "</s>": 1, **{f"w{index}": index for index in range(2, VOCAB)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def write(folder: Path, name: str, seed: int = 0) -> Path:
    """Write a random checkpoint of an architecture; return its folder."""
    torch.manual_seed(seed)
    path = folder / f"{name}-{seed}"
    model = AutoModelForCausalLM.from_config(configs()[name], dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def pairs(folder):
    """Return what loads a checkpoint by name on the engine "lean" or "library", once each."""

    @cache
    def load(name, engine):
        module = AutoModelForCausalLM.from_pretrained(write(folder, name), dtype=torch.float64)
        if engine == "lean":
            cpu = torch.device("cpu")
            return ModelPair(name, LeanDecoder.of(module.eval(), name, cpu, torch.float64))
        return ModelPair(name, CausalLM(module.eval(), name))

    return load
