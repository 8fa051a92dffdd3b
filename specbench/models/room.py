"""What the cache of a model entry takes beside its weights, before anything is loaded.

A picture's length is its grid's, and it is computed in as many rows as its guidance mixes; a text's
is the context that the entry asks for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from specbench.law import Guidance
from specbench.models.base import slots_for
from specbench.schema.model import ModelConfig


class Room(NamedTuple):
    """The cache that a run of a model entry asks for.

    Attributes:
        rows: Sequences that are computed side by side.
        tokens: The longest sequence that is known beforehand.
    """

    rows: int
    tokens: int

    @classmethod
    def of(cls, config: ModelConfig, tokens: int | None = None) -> Room:
        """Return the room of an entry.

        Args:
            config: The entry; its `sampling` is the run's.
            tokens: Of a picture; None for text, which takes the entry's context.
        """
        if tokens is None:
            return cls(1, config.context or 0)
        scale = config.sampling.get("cfg_scale")
        guidance = Guidance(1.0 if scale is None else scale, "constant", _image_scale(config))
        return cls(guidance.rows, tokens if config.context is None else min(tokens, config.context))

    def bytes(self, values: int, dtype: torch.dtype) -> int:
        """Return the bytes of the cache of one model.

        Args:
            values: Numbers that a token of one row leaves in it.
            dtype: What they are kept in.
        """
        return self.rows * slots_for(self.tokens) * values * int(dtype.itemsize)

    def describe(self) -> str:
        """Return rows and slots in words."""
        rows = f"{self.rows} rows of " if self.rows > 1 else ""
        return f"{rows}{slots_for(self.tokens):,} tokens"


def cache_values(settings: Any) -> int:
    """Return the numbers that a token leaves in the cache of a transformers configuration.

    0 where it does not tell: then the cache is not counted.
    """
    settings = settings.get_text_config()
    count = getattr(settings, "num_hidden_layers", None) or 0
    own = getattr(settings, "per_layer_config", None)  # where layers may differ in width
    layers = [own[i] if own else settings for i in range(count)]
    kinds = getattr(settings, "layer_types", None) or ["attention"] * count
    kept = ["attention" in kind and "linear" not in kind for kind in kinds]
    return 2 * sum(_width(layer) for layer, keeps in zip(layers, kept, strict=False) if keeps)


def _width(layer: Any) -> int:
    """Return the numbers of one key; 0 where the layer does not tell."""
    heads = getattr(layer, "num_attention_heads", None)
    channels = getattr(layer, "hidden_size", None)
    if not (heads and channels):
        return 0
    groups = getattr(layer, "num_key_value_heads", None) or heads
    return int(groups * (getattr(layer, "head_dim", None) or channels // heads))


def _image_scale(config: ModelConfig) -> float | None:
    scale = config.sampling.get("image_scale")
    return None if scale is None else float(scale)
