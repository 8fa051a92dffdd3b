"""Chameleon and its children: one vocabulary of words and codes (Chameleon Team 2024).

One adapter serves the embedded image model, Lumina-mGPT (Liu et al. 2024) and Anole (Chern et al.
2024): they share the architecture, and what differs is data (`image_side.Layout`). Configurations,
weights and tokenizers come through transformers; what runs is the lean decoder. transformers' own
class forbids the codes at the end of its forward, so it serves for loading alone.

Token ids and rows as released: Alpha-VLLM/Lumina-mGPT, lumina_mgpt/inference_solver.py,
data/item_processor.py and, for the norms of queries and keys, model/chameleon;
facebookresearch/chameleon, chameleon/inference/vocab.py and chameleon.py; GAIR-NLP/anole,
text2image.py.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from transformers import ChameleonConfig, ChameleonForConditionalGeneration

from specbench.errors import ModelError
from specbench.models.checkpoint import Checkpoint
from specbench.models.image_side import Layout, PixelDecoder
from specbench.models.one_vocabulary import Family, load_family
from specbench.models.pair import ModelPair
from specbench.models.shards import shape_of
from specbench.models.vqgan_files import load_pixel_decoder
from specbench.schema.model import ModelConfig

_CODE_NAME = re.compile(r"IMGIMG([A-J]+)Z")


def load(
    config: ModelConfig, *, needs: frozenset[str] = frozenset({"draft"}), **options: Any
) -> ModelPair:
    """Load a model of the Chameleon family; see `one_vocabulary.load_family`."""
    return load_family(Chameleon(), config, needs, options)


class _Language(ChameleonForConditionalGeneration):  # type: ignore[misc]
    """The language model alone: whatever the checkpoint holds of pictures is passed over.

    The norms of queries and keys have the rows that the checkpoint gives them
    (`settings.norm_rows`), which transformers' class fixes at one for every head.
    """

    _keys_to_ignore_on_load_unexpected = (r"^model\.vqmodel\.",)

    def __init__(self, config: ChameleonConfig) -> None:
        super().__init__(config)
        self.model.vqmodel = nn.Identity()
        for layer in self.model.layers:
            for name, rows in config.norm_rows.items():
                norm = getattr(layer.self_attn, name)
                for part in ("weight", "bias"):
                    values = getattr(norm, part)
                    setattr(norm, part, nn.Parameter(values.new_empty(rows, values.shape[-1])))


class Chameleon(Family):
    """How checkpoints of the family are read."""

    settings_kind = ChameleonConfig
    module_kind = _Language

    def read_settings(self, files: Checkpoint) -> Any:
        """Read a checkpoint's configuration; the norms of the 30B model are refused."""
        settings = super().read_settings(files)
        if settings.swin_norm or settings.hidden_act != "silu":
            raise ModelError(
                f"'{files.source}' cannot be run",
                "it normalises behind its sublayers, as the 30B Chameleon does; the lean decoder "
                "computes norms before them",
                "Choose a model of the 7B shape.",
            )
        settings.norm_rows = norm_rows(files, settings)
        return settings

    def load_pixel_decoder(
        self, files: Checkpoint, settings: Any, layout: Layout, device: torch.device
    ) -> PixelDecoder:
        """Load Meta's VQGAN, or keep the reason why it is not there."""
        place, revision = layout.image_tokenizer, layout.image_tokenizer_revision
        return load_pixel_decoder(place, revision, files, settings, device)

    def code_number(self, name: str) -> int | None:
        """Read a code's number off its name.

        A name spells it in letters, A for 0 to J for 9, between "IMGIMG" and "Z"; nothing
        says that ids follow the order of numbers (chameleon/inference/vocab.py).
        """
        match = _CODE_NAME.fullmatch(name)
        if match is None:
            return None
        return int("".join(str(ord(letter) - ord("A")) for letter in match[1]))


def norm_rows(files: Checkpoint, settings: ChameleonConfig) -> dict[str, int]:
    """Return how many rows the norms of queries and keys have in a checkpoint.

    Chameleon was trained in shards of some heads each, and every shard has a weight and bias of
    its own. The releases of Lumina-mGPT keep a row for each shard, transformers' conversions one
    for each head, and the configurations do not tell which (`model_parallel_size` is 1 in both):
    the header of the weights does.

    Raises:
        ModelError: If the heads do not divide by the rows.
    """
    rows = {}
    heads = {"q_norm": settings.num_attention_heads, "k_norm": settings.num_key_value_heads}
    for name, count in heads.items():
        shape = shape_of(files, f"model.layers.0.self_attn.{name}.weight") or (count,)
        rows[name] = shape[0]
        if count % shape[0]:
            raise ModelError(
                f"'{files.source}' cannot be run",
                f"its {name} has {shape[0]} rows, which do not divide its {count} heads",
                "Name a checkpoint of the Chameleon family as it was published.",
            )
    return rows
