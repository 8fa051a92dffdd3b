"""A small Llama checkpoint in the published layout, written file by file and key by key.

No class that reads checkpoints has a hand in it: what a reader makes of the names, the keys and
the missing ones is what the tests ask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

IDS, WIDTH, INNER, LAYERS, HEADS = 400, 16, 24, 2, 4
END = 1
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": IDS,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": END,
    "torch_dtype": "float32",
}


def tensors(ids: int = IDS, seed: int = 0) -> dict[str, Tensor]:
    """Return the weights of the model under their published names."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    made = {
        "model.embed_tokens.weight": normal(ids, WIDTH),
        "model.norm.weight": torch.ones(WIDTH),
        "lm_head.weight": normal(ids, WIDTH),
    }
    for layer in range(LAYERS):
        names = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            made[f"{names}.self_attn.{name}.weight"] = normal(WIDTH, WIDTH)
        for name in ("gate_proj", "up_proj"):
            made[f"{names}.mlp.{name}.weight"] = normal(INNER, WIDTH)
        made[f"{names}.mlp.down_proj.weight"] = normal(WIDTH, INNER)
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{names}.{name}.weight"] = torch.ones(WIDTH)
    return made


def write_tokenizer(folder: Path, ids: int = IDS, end: str | None = "</s>") -> None:
    """Write a tokenizer of the words w2, w3 ... into a folder."""
    words = {"<s>": 0, "</s>": END, **{f"w{index}": index for index in range(2, ids)}}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": words[word],
                "content": word,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for word in ("<s>", "</s>")
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<s>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    settings |= {} if end is None else {"eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write(
    folder: Path,
    weights: Mapping[str, Tensor] | None = None,
    *,
    generation: Mapping[str, Any] | None = None,
    end: str | None = "</s>",
    **config: Any,
) -> Path:
    """Write a checkpoint.

    Args:
        folder: Where; it is made.
        weights: The tensors; None for those of `tensors`.
        generation: What stands in generation_config.json; None for no such file.
        end: The tokenizer's end of text; None for none.
        **config: Keys of config.json that differ; a key of None is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**CONFIG, **config}
    weights = tensors(settings["vocab_size"]) if weights is None else weights
    save_file(dict(weights), folder / "model.safetensors", {"format": "pt"})
    kept = {key: value for key, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    write_tokenizer(folder, settings["vocab_size"], end)
    return folder
