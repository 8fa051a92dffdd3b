"""Tiny configurations of every architecture that is said to run, with windows that are passed.

`docs/models.md` has a row for each; a test holds page and code together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.lean_weights import supports

VOCAB = 96
_LLAMA = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,
)
_GPT2 = dict(
    vocab_size=VOCAB,
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=256,
    bos_token_id=0,
    eos_token_id=1,
)
_EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
_LATENT = dict(
    num_key_value_heads=4,
    q_lora_rank=16,
    kv_lora_rank=12,
    qk_rope_head_dim=8,
    qk_nope_head_dim=6,
    v_head_dim=10,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    moe_intermediate_size=24,
    first_k_dense_replace=1,
    n_shared_experts=1,
)
_DELTA = dict(
    head_dim=8,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    layer_types=["linear_attention", "full_attention"],
)
WINDOW = 13


def _rope(kind: str, **values: object) -> dict[str, object]:
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **values))


class Case(NamedTuple):
    """An architecture as the page names it.

    Attributes:
        kind: `model_type`.
        changes: Keys of the configuration, beside a base of the same shape for all.
        about: What the case adds to the plain architecture.
        base: The keys before the changes.
    """

    kind: str
    changes: dict[str, object]
    about: str = ""
    base: dict[str, object] = _LLAMA

    @property
    def config(self):
        """The transformers configuration."""
        values = {**self.base, **self.changes}
        values = {key: value for key, value in values.items() if value is not ...}
        return AutoConfig.for_model(self.kind, **values)


_LONGROPE = _rope(
    "longrope",
    factor=4.0,
    short_factor=[1.0] * 4,
    long_factor=[2.0, 3.0, 4.0, 5.0],
    original_max_position_embeddings=28,
)
CASES = {
    "llama": Case("llama", {}),
    "llama-llama3": Case(
        "llama",
        _rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
        "llama3 rope",
    ),
    "llama-yarn": Case(
        "llama", _rope("yarn", factor=4.0, original_max_position_embeddings=32), "yarn rope"
    ),
    "llama-longrope": Case("llama", _LONGROPE, "longrope"),
    "llama-gelu": Case("llama", dict(hidden_act="gelu"), "activation other than SiLU"),
    "mistral": Case("mistral", dict(sliding_window=WINDOW), "sliding window"),
    "ministral3": Case("ministral3", dict(sliding_window=WINDOW, head_dim=8), "sliding window"),
    "mixtral": Case(
        "mixtral", dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None), "experts"
    ),
    "qwen2": Case("qwen2", {}),
    "qwen2-window": Case(
        "qwen2",
        dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
        "sliding window in some layers",
    ),
    "qwen3": Case("qwen3", dict(head_dim=16)),
    "qwen3_moe": Case("qwen3_moe", dict(head_dim=16, **_EXPERTS), "experts"),
    "qwen3_next": Case("qwen3_next", {**_DELTA, **_EXPERTS}, "linear attention, experts"),
    "qwen3_5_text": Case("qwen3_5_text", _DELTA, "linear attention"),
    "phi": Case("phi", {}),
    "phi3": Case("phi3", dict(sliding_window=WINDOW), "sliding window"),
    "phi3-longrope": Case(
        "phi3", dict(original_max_position_embeddings=28, **_LONGROPE), "longrope"
    ),
    "gemma": Case("gemma", dict(head_dim=8)),
    "gemma2": Case("gemma2", dict(head_dim=8, sliding_window=WINDOW), "sliding window"),
    "gemma3_text": Case(
        "gemma3_text",
        dict(
            head_dim=8,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention"],
        ),
        "sliding window",
    ),
    "gemma4_text": Case(
        "gemma4_text",
        dict(
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            num_hidden_layers=4,
            num_kv_shared_layers=2,
            layer_types=["sliding_attention", "full_attention"] * 2,
            sliding_window=WINDOW,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=VOCAB,
        ),
        "sliding window, layers that share keys, two head widths",
    ),
    "gpt_oss": Case(
        "gpt_oss",
        dict(head_dim=8, sliding_window=WINDOW, num_local_experts=4, num_experts_per_tok=2)
        | _rope("default"),
        "sliding window, sinks, experts",
    ),
    "llama4_text": Case(
        "llama4_text",
        dict(
            head_dim=8,
            num_local_experts=2,
            interleave_moe_layer_step=2,
            attention_chunk_size=WINDOW,
            intermediate_size_mlp=48,
            layer_types=["chunked_attention", "full_attention"],
        ),
        "chunked attention, experts",
    ),
    "cohere": Case("cohere", {}),
    "cohere2": Case("cohere2", dict(sliding_window=WINDOW), "sliding window"),
    "olmo2": Case("olmo2", {}),
    "olmo3": Case("olmo3", dict(sliding_window=WINDOW), "sliding window"),
    "exaone4": Case("exaone4", dict(sliding_window=WINDOW), "sliding window"),
    "granite": Case(
        "granite",
        dict(
            embedding_multiplier=2.0,
            residual_multiplier=0.5,
            logits_scaling=4.0,
            attention_multiplier=0.2,
        ),
    ),
    "smollm3": Case("smollm3", {}),
    "glm4": Case("glm4", dict(head_dim=8)),
    "nemotron": Case("nemotron", dict(head_dim=8)),
    "stablelm": Case("stablelm", {}),
    "starcoder2": Case("starcoder2", dict(sliding_window=WINDOW), "sliding window"),
    "deepseek_v2": Case("deepseek_v2", _LATENT | dict(q_lora_rank=None), "latent attention"),
    "deepseek_v3": Case("deepseek_v3", _LATENT, "latent attention, experts"),
    "gpt2": Case("gpt2", {}, base=_GPT2),
    "gptj": Case("gptj", dict(rotary_dim=4), base=_GPT2),
    "gpt_bigcode": Case("gpt_bigcode", dict(multi_query=True), "one key head", base=_GPT2),
    "gpt_neox": Case("gpt_neox", dict(num_key_value_heads=...)),
    "opt": Case(
        "opt",
        dict(ffn_dim=48, word_embed_proj_dim=32, num_key_value_heads=..., intermediate_size=...),
    ),
    "falcon": Case(
        "falcon",
        dict(
            multi_query=True,
            new_decoder_architecture=False,
            alibi=False,
            num_key_value_heads=...,
            intermediate_size=...,
        ),
        "one key head",
    ),
    "falcon-alibi": Case(
        "falcon",
        dict(multi_query=False, alibi=True, num_key_value_heads=..., intermediate_size=...),
        "ALiBi",
    ),
    "bloom": Case(
        "bloom",
        dict(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0),
        "ALiBi",
        base={},
    ),
    "mpt": Case(
        "mpt",
        dict(
            vocab_size=VOCAB, d_model=32, n_heads=4, n_layers=2, expansion_ratio=2, max_seq_len=256
        ),
        "ALiBi",
        base={},
    ),
    "mamba2": Case(
        "mamba2",
        dict(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=2,
            state_size=8,
            num_heads=8,
            head_dim=8,
            n_groups=2,
            chunk_size=8,
        ),
        "state space",
        base={},
    ),
    "falcon_mamba": Case(
        "falcon_mamba",
        dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=8),
        "state space",
        base={},
    ),
    "lfm2": Case(
        "lfm2",
        dict(layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
        "short convolutions",
    ),
    "jamba": Case(
        "jamba",
        dict(
            num_experts=2,
            num_experts_per_tok=1,
            attn_layer_period=2,
            attn_layer_offset=1,
            mamba_d_state=8,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
        ),
        "state space, experts",
    ),
    "bamba": Case(
        "bamba",
        dict(
            attn_layer_indices=[1],
            mamba_n_heads=8,
            mamba_d_head=8,
            mamba_d_state=8,
            mamba_n_groups=1,
            mamba_chunk_size=8,
        ),
        "state space",
    ),
    "granitemoehybrid": Case(
        "granitemoehybrid",
        dict(
            layer_types=["mamba", "attention"],
            shared_intermediate_size=48,
            num_local_experts=2,
            num_experts_per_tok=1,
            mamba_n_heads=8,
            mamba_d_head=8,
            mamba_d_state=8,
            mamba_n_groups=1,
            mamba_chunk_size=8,
        ),
        "state space, experts",
    ),
    "mamba": Case(
        "mamba",
        dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=8),
        "state space",
        base={},
    ),
}


def module_of(case: Case):
    """Return a module of random weights, whose laws are far from flat."""
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(case.config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.6 if "embed" in name or "head" in name else 0.15)
    return module


def engine_of(case: Case):
    """Return the engine's class that runs a case."""
    return LeanDecoder if supports(case.config) else CausalLM


def model_of(case: Case):
    """Return the model behind the port; the same weights as `module_of`."""
    module = module_of(case)
    if engine_of(case) is LeanDecoder:
        return LeanDecoder.of(module, case.kind, torch.device("cpu"), torch.float32)
    return CausalLM(module, case.kind)
