"""GGUF files written byte by byte by the format's specification, and small models for them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

KINDS = {"F32": 0, "F16": 1, "Q4_1": 3, "Q8_0": 8, "BF16": 30}
"""Numbers of the quantisation types in ggml.h."""

HIDDEN, FEED, HEADS, GROUPS, WIDTH, BLOCKS = 64, 96, 4, 2, 16, 2


class Raw(NamedTuple):
    """A tensor as it lies in a file."""

    kind: int
    shape: tuple[int, ...]
    data: bytes


def text(value: str | bytes) -> bytes:
    content = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(content)) + content


def value_of(value: Any) -> bytes:
    """Return a metadata value with its type: u32, i32 lists, f32, bool, string and their lists."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


def written(path: Path, metadata: dict[str, Any], tensors: dict[str, Raw]) -> Path:
    """Write a file of version 3."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(key) + value_of(value) for key, value in metadata.items())
    body = b""
    for name, raw in tensors.items():
        body += b"\0" * (-len(body) % 32)
        shape = raw.shape[::-1]
        head += text(name) + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, raw.kind, len(body)
        )
        body += raw.data
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


def plain(values: np.ndarray, kind: str = "F32") -> Raw:
    """Return numbers that are not quantised."""
    data = values.astype("<f2" if kind == "F16" else "<f4").tobytes()
    if kind == "BF16":
        data = np.frombuffer(data, "<u2")[1::2].tobytes()  # the upper halves
    return Raw(KINDS[kind], values.shape, data)


def q8_0(values: np.ndarray) -> tuple[Raw, np.ndarray]:
    """Quantise rows: blocks of 32, an f16 scale and 32 int8. Returns what they stand for too."""
    blocks = values.reshape(-1, 32)
    scale = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)
    numbers = np.round(blocks / scale.astype(np.float32)).astype(np.int8)
    data = b"".join(s.tobytes() + n.tobytes() for s, n in zip(scale, numbers, strict=True))
    meant = scale.astype(np.float32) * numbers.astype(np.float32)
    return Raw(KINDS["Q8_0"], values.shape, data), meant.reshape(values.shape)


def q4_1(values: np.ndarray) -> tuple[Raw, np.ndarray]:
    """Quantise rows: blocks of 32, f16 scale and minimum, and 16 bytes of two nibbles.

    The low nibbles are the first 16 numbers, the high ones the last.
    """
    blocks = values.reshape(-1, 32)
    least = blocks.min(1, keepdims=True).astype(np.float16)
    scale = ((blocks.max(1, keepdims=True) - least.astype(np.float32)) / 15).astype(np.float16)
    steps = (blocks - least.astype(np.float32)) / scale.astype(np.float32)
    numbers = np.clip(np.round(steps), 0, 15).astype(np.uint8)
    packed = numbers[:, :16] | numbers[:, 16:] << 4
    rows = zip(scale, least, packed, strict=True)
    data = b"".join(s.tobytes() + m.tobytes() + p.tobytes() for s, m, p in rows)
    meant = scale.astype(np.float32) * numbers + least.astype(np.float32)
    return Raw(KINDS["Q4_1"], values.shape, data), meant.astype(np.float32).reshape(values.shape)


def paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder published rows of queries or keys as llama.cpp's converter does for Llama."""
    width = weight.shape[0] // heads
    return weight.reshape(heads, 2, width // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def byte_letters() -> list[str]:
    """Return the 256 letters that stand for bytes in GPT-2's vocabulary (encoder.py)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(b if b in shown else next(hidden)) for b in range(256)]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["1 2", "Ġ t", "h e", "Ġt he", "l l", "e ll", "Ġ 1", "Ċ Ċ", "Ġ Ġ", "' s", "Ã ©"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary() -> list[str]:
    return [*SPECIAL, *byte_letters(), *(merge.replace(" ", "") for merge in MERGES)]


def metadata(architecture: str = "llama", **changes: Any) -> dict[str, Any]:
    """Return the fields of a small model; dots in the names of changes are written `__`."""
    tokens = vocabulary()
    fields = {
        "general.architecture": architecture,
        f"{architecture}.block_count": BLOCKS,
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": FEED,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": GROUPS,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 100000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }
    fields |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in fields.items() if value is not None}


def model(architecture: str = "llama", seed: int = 0) -> tuple[dict[str, Raw], dict[str, Any]]:
    """Return the tensors of a small model as a file has them, and as they are published."""
    random = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    stored: dict[str, Raw] = {}
    published: dict[str, np.ndarray] = {}
    stored["token_embd.weight"], published["model.embed_tokens.weight"] = q8_0(
        numbers(len(vocabulary()), HIDDEN)
    )
    published["model.norm.weight"] = 1 + numbers(HIDDEN)
    stored["output_norm.weight"] = plain(published["model.norm.weight"])
    for index in range(BLOCKS):
        here, there = f"blk.{index}.", f"model.layers.{index}."
        for name, own in (
            ("attn_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
        ):
            published[f"{there}{own}.weight"] = 1 + numbers(HIDDEN)
            stored[f"{here}{name}.weight"] = plain(published[f"{there}{own}.weight"])
        for name, own, shape, heads in (
            ("attn_q", "self_attn.q_proj", (HEADS * WIDTH, HIDDEN), HEADS),
            ("attn_k", "self_attn.k_proj", (GROUPS * WIDTH, HIDDEN), GROUPS),
            ("attn_v", "self_attn.v_proj", (GROUPS * WIDTH, HIDDEN), None),
            ("attn_output", "self_attn.o_proj", (HIDDEN, HEADS * WIDTH), None),
            ("ffn_gate", "mlp.gate_proj", (FEED, HIDDEN), None),
            ("ffn_up", "mlp.up_proj", (FEED, HIDDEN), None),
            ("ffn_down", "mlp.down_proj", (HIDDEN, FEED), None),
        ):
            meant = q4_1(numbers(*shape))[1]
            reordered = heads if architecture == "llama" else None
            inner = paired(meant, reordered) if reordered else meant
            stored[f"{here}{name}.weight"], again = q4_1(inner)
            published[f"{there}{own}.weight"] = _unpaired(again, reordered) if reordered else again
        if architecture == "qwen2":
            for part, rows in (("q", HEADS), ("k", GROUPS), ("v", GROUPS)):
                published[f"{there}self_attn.{part}_proj.bias"] = numbers(rows * WIDTH)
                stored[f"{here}attn_{part}.bias"] = plain(
                    published[f"{there}self_attn.{part}_proj.bias"]
                )
        if architecture == "qwen3":
            for part in ("q", "k"):
                published[f"{there}self_attn.{part}_norm.weight"] = 1 + numbers(WIDTH)
                stored[f"{here}attn_{part}_norm.weight"] = plain(
                    published[f"{there}self_attn.{part}_norm.weight"]
                )
    return stored, published


def _unpaired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo `paired`, row by row: head h's channel c of half s lies at 2 c + s."""
    width = weight.shape[0] // heads
    rows = [
        head * width + 2 * channel + half
        for head in range(heads)
        for half in range(2)
        for channel in range(width // 2)
    ]
    return weight[rows]
