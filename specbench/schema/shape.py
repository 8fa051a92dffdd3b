"""The shape of a decoder-only transformer: what a forward of it reads and computes.

A shape holds no weights. It comes from an entry of `conf/shape`, from the config.json that every
checkpoint carries, or from a result file, which records the shapes of the models that ran.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictStr
from pydantic.dataclasses import dataclass

from specbench.errors import ConfigError
from specbench.schema.group import Group, Number, Text, Whole, Words

LARGEST_SIZE = 10**9
"""Size beyond which a configuration is not believed."""

Size = Annotated[Whole, Field(ge=1, le=LARGEST_SIZE)]

_COUNTED = "published_parameters"

_CONFIG_NAMES = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "vocabulary": "vocab_size",
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class Shape(Group):
    """Sizes of a decoder with gated feed-forward layers and grouped-query attention.

    Attributes:
        name: Its id, the stem of its YAML file, or where its config.json lies.
        title: A short human name.
        hidden_size: Width of the residual stream.
        layers: Number of layers.
        heads: Query heads.
        key_value_heads: Heads of keys and values.
        head_size: Width of one head.
        intermediate_size: Width inside the feed-forward layers.
        vocabulary: Number of token ids.
        tied: Whether the embedding is the output layer too.
        aliases: Other names.
        checkpoints: Hub ids that have this shape.
        published_parameters: What the publisher counts, or None.
        source: Where the sizes stand.
    """

    key_path = "shape"

    name: Text
    title: Text
    hidden_size: Size
    layers: Size
    heads: Size
    key_value_heads: Size
    head_size: Size
    intermediate_size: Size
    vocabulary: Size
    tied: StrictBool = False
    aliases: Words = ()
    checkpoints: Words = ()
    published_parameters: Annotated[Number, Field(ge=0)] | None = None
    source: StrictStr = ""

    @classmethod
    def keys_of(cls, values: Mapping[Any, Any]) -> Collection[str]:
        """Return the fields; what a publisher counts stands under `parameters`."""
        return ["parameters" if key == _COUNTED else key for key in super().keys_of(values)]

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Give what a publisher counts its own name: `parameters` follow from the sizes."""
        return {_COUNTED if key == "parameters" else key: values[key] for key in values}

    @classmethod
    def from_config(cls, values: Mapping[str, Any], name: str) -> Shape:
        """Read the config.json of a checkpoint.

        Args:
            values: Its keys; a text model inside (`text_config`) is taken out.
            name: What to call the shape.

        Raises:
            ConfigError: If a size is missing, or the model routes tokens to experts: then a
                forward does not read all weights, and this model of costs does not hold.
        """
        inner = values.get("text_config")
        if isinstance(inner, Mapping):
            values = {**values, **inner}
        experts = next((key for key in _EXPERTS if values.get(key)), None)
        if experts:
            raise ConfigError(
                f"'{name}' is a mixture of experts",
                f"its configuration has {experts}={str(values[experts])[:60]}; how many experts a "
                "draft wakes is not in a result file",
                "Name a dense model with --target or --draft.",
            )
        sizes: dict[str, Any] = {
            ours: _size(values, theirs, name) for ours, theirs in _CONFIG_NAMES.items()
        }
        heads = sizes["heads"]
        return cls(
            name=name,
            title=name,
            **sizes,
            key_value_heads=_size(values, "num_key_value_heads", name, heads),
            head_size=_size(values, "head_dim", name, max(1, sizes["hidden_size"] // heads)),
            tied=bool(values.get("tie_word_embeddings", False)),
        )

    def record(self) -> dict[str, int | bool]:
        """Return the sizes alone, as a result file keeps them; `from_dict` reads them."""
        kept = (*_CONFIG_NAMES, "key_value_heads", "head_size", "tied")
        return {name: getattr(self, name) for name in kept}

    @property
    def multiplied_parameters(self) -> int:
        """Weights that every token is multiplied with: projections and the output layer."""
        query = self.heads * self.head_size
        cache = self.key_value_heads * self.head_size
        attention = self.hidden_size * (2 * query + 2 * cache)
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        return self.layers * (attention + feed_forward) + self.hidden_size * self.vocabulary

    @property
    def parameters(self) -> int:
        """All weights but those of norms and biases, which are less than a thousandth."""
        embedding = 0 if self.tied else self.hidden_size * self.vocabulary
        return self.multiplied_parameters + embedding

    @property
    def cache_values(self) -> int:
        """Numbers that one token leaves in the key-value cache."""
        return 2 * self.layers * self.key_value_heads * self.head_size


def _size(values: Mapping[str, Any], key: str, name: str, default: int | None = None) -> int:
    value = values.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_SIZE:
        raise ConfigError(
            f"The configuration of '{name}' has no usable {key}",
            f"it is {repr(value)[:60]}; the cost of a forward follows from it",
            "Give the config.json of a decoder-only transformer.",
        )
    return value
