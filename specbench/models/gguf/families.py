"""Which architectures of GGUF files are known for certain, and their names elsewhere.

A file holds the same numbers as the published checkpoint under other names, with one difference:
llama.cpp rotates neighbouring channels of Llama's heads where everyone else rotates halves, so its
converter reorders the rows of queries and keys (convert_hf_to_gguf.py, `LlamaModel.permute`). A key
that is not known could change what is computed, so a file with one is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from specbench.errors import ModelError
from specbench.models.gguf.header import Header

ROTARY = "rope_freqs.weight"

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
_HEAD = {"output.weight": "lm_head.weight"}
_BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_BIASES = {f"attn_{part}.bias": f"self_attn.{part}_proj.bias" for part in ("q", "k", "v")}
_HEAD_NORMS = {f"attn_{part}_norm.weight": f"self_attn.{part}_norm.weight" for part in ("q", "k")}
_KEYS = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "vocab_size",
}
_MOST = 1 << 24  # of any size that a key states
_LLAMA3 = ((8.0, 8192), (32.0, 8192))
"""Factor and old context of the published Llama 3.1 and 3.2; wavelengths by 1 and 4."""


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        model_type: Its name in transformers.
        kind: Its class there.
        further: What a block holds beside `_BLOCK`.
        paired: Whether the rows of queries and keys stand in pairs.
    """

    model_type: str
    kind: str
    further: dict[str, str]
    paired: bool


FAMILIES = {
    "llama": Family("llama", "LlamaForCausalLM", {}, True),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM", _BIASES, False),
    "qwen3": Family("qwen3", "Qwen3ForCausalLM", _HEAD_NORMS, False),
}
"""By `general.architecture`; Mistral's files say "llama"."""


class Taken(NamedTuple):
    """A tensor of a file under its published name.

    Attributes:
        source: Its name in the file.
        rows: The order in which its rows are taken, or None for their own.
    """

    source: str
    rows: np.ndarray[Any, Any] | None


class Layout(NamedTuple):
    """How a file becomes a checkpoint.

    Attributes:
        config: The contents of config.json, without special tokens.
        tensors: By published name.
    """

    config: dict[str, Any]
    tensors: dict[str, Taken]


def layout_of(header: Header) -> Layout:
    """Return how a file becomes a checkpoint.

    Raises:
        ModelError: If its architecture, a key or a tensor is not one that is known.
    """
    architecture = header.metadata.get("general.architecture")
    family = FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if family is None:
        raise unknown(
            header,
            f"its architecture is {str(architecture)[:80]!r}; known for certain are "
            f"{', '.join(FAMILIES)}",
        )
    keys = _Keys(header, f"{architecture}.")
    hidden, blocks = keys.size("embedding_length"), keys.size("block_count")
    feed, heads = keys.size("feed_forward_length"), keys.size("attention.head_count")
    groups = keys.size("attention.head_count_kv", heads)
    width = keys.size("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.size(key, width) != width:
            raise unknown(header, f"its {key} is not {width}, the width of a head")
    if heads % groups or width % 2 or (width * heads != hidden and family.model_type == "qwen2"):
        raise unknown(header, f"{heads} heads of {width} over {groups} do not fit")
    tied = "output.weight" not in header.tensors
    names = _TOP if tied else _TOP | _HEAD
    inner = _BLOCK | family.further
    names = names | {
        f"blk.{index}.{name}": f"model.layers.{index}.{published}"
        for index in range(min(blocks, len(header.tensors)))
        for name, published in inner.items()
    }
    _check_names(header, names, blocks)
    vocabulary = header.tensors["token_embd.weight"].shape[0]
    shapes = {
        "token_embd.weight": (vocabulary, hidden),
        "output.weight": (vocabulary, hidden),
        "attn_q.weight": (heads * width, hidden),
        "attn_k.weight": (groups * width, hidden),
        "attn_v.weight": (groups * width, hidden),
        "attn_output.weight": (hidden, heads * width),
        "attn_q.bias": (heads * width,),
        "attn_k.bias": (groups * width,),
        "attn_v.bias": (groups * width,),
        "attn_q_norm.weight": (width,),
        "attn_k_norm.weight": (width,),
        "ffn_gate.weight": (feed, hidden),
        "ffn_up.weight": (feed, hidden),
        "ffn_down.weight": (hidden, feed),
    }
    for name in names:
        wanted = shapes.get(name) or shapes.get(name.split(".", 2)[-1], (hidden,))
        if header.tensors[name].shape != wanted:
            shape = list(header.tensors[name].shape)
            raise unknown(header, f"'{name}' is {shape}, and its keys make it {list(wanted)}")
    orders = {"attn_q.weight": _halves(heads, width), "attn_k.weight": _halves(groups, width)}
    tensors = {
        published: Taken(name, orders.get(name.split(".", 2)[-1]) if family.paired else None)
        for name, published in names.items()
    }
    base = keys.real("rope.freq_base", 10000.0)
    config = {
        "architectures": [family.kind],
        "model_type": family.model_type,
        "hidden_size": hidden,
        "intermediate_size": feed,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": width,
        "hidden_act": "silu",
        "max_position_embeddings": keys.size("context_length"),
        "rms_norm_eps": keys.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": base,
        "rope_scaling": _scaling(header, base, width),
        "tie_word_embeddings": tied,
        "vocab_size": vocabulary,
        "use_cache": True,
    }
    if family.model_type == "qwen2":
        del config["head_dim"]
    return Layout(config, tensors)


def unknown(header: Header, why: str) -> ModelError:
    """Return the error of a file that is whole and not known for certain."""
    return ModelError(
        f"'{header.path}' is no GGUF file that can be converted for certain",
        why,
        "Name the checkpoint that it was made from (a folder, or ORG/NAME on the hub).",
    )


class _Keys:
    """The keys of an architecture; one that is not known is refused."""

    def __init__(self, header: Header, prefix: str) -> None:
        self._header = header
        self._prefix = prefix
        own = {key.removeprefix(prefix) for key in header.metadata if key.startswith(prefix)}
        strange = sorted(own - _KEYS - {"rope.scaling.type"})
        scaling = header.metadata.get(f"{prefix}rope.scaling.type", "none")
        if scaling != "none":
            strange.append("rope.scaling.type")
        if strange:
            raise unknown(header, f"it has keys that are not known: {', '.join(strange)[:200]}")

    def size(self, key: str, default: int | None = None) -> int:
        """Return a positive whole number."""
        value = self._header.metadata.get(self._prefix + key, default)
        if type(value) is not int or not 0 < value <= _MOST:
            raise unknown(self._header, f"{self._prefix}{key} is {str(value)[:80]}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """Return a positive number, as the shortest one that its 32 bits stand for."""
        value = self._header.metadata.get(self._prefix + key, default)
        if type(value) is not float or not math.isfinite(value) or value <= 0:
            raise unknown(self._header, f"{self._prefix}{key} is {str(value)[:80]}")
        return float(str(np.float32(value)))


def _check_names(header: Header, names: Mapping[str, str], blocks: int) -> None:
    if blocks > len(header.tensors):
        raise unknown(
            header, f"it claims {blocks:,} blocks and holds {len(header.tensors)} tensors"
        )
    missing = sorted(set(names) - set(header.tensors))
    strange = sorted(set(header.tensors) - set(names) - {ROTARY})
    for found, what in ((missing, "it lacks"), (strange, "it holds")):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            tensors = ", a tensor that is not known" if found is strange else ""
            raise unknown(header, f"{what} '{found[0][:80]}'{more}{tensors}")


def _halves(heads: int, width: int) -> np.ndarray[Any, Any]:
    """Return the order of rows in which the first channels of all pairs stand before the second."""
    rows = np.arange(heads * width).reshape(heads, width // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


def _scaling(header: Header, base: float, width: int) -> dict[str, Any] | None:
    """Return the published settings that a table of rotary factors was made of; None without one.

    Raises:
        ModelError: If it is of no release that is known.
    """
    stored = header.tensors.get(ROTARY)
    if stored is None:
        return None
    if stored.kind == "F32" and stored.shape == (width // 2,):
        table = np.fromfile(header.path, "<f4", width // 2, offset=stored.start)
        for factor, context in _LLAMA3:
            if np.allclose(table, _factors(base, width, factor, context), rtol=1e-5):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": context,
                }
    raise unknown(header, f"its {ROTARY} is not the table of a known Llama 3")


def _factors(base: float, width: int, factor: float, context: int) -> Sequence[float]:
    """Return by what Llama 3 divides each frequency (transformers, `rope_type` "llama3")."""
    waves = 2 * np.pi * base ** (np.arange(0, width, 2, dtype=np.float64) / width)
    smooth = np.clip((context / waves - 1.0) / (4.0 - 1.0), 0.0, 1.0)
    return list(1 / ((1 - smooth) / factor + smooth))
