"""What every head is: trained weights that draft behind a target's hidden states.

A head is a model: it has a forward, a cache of its own and logits over the target's ids, so that a
session lets it work as it does a draft model. What it is fed its family says; a family of features
(`FeatureHead`) is fed a token and the feature of the token before it.

Shapes: T tokens, C channels of the target's states, V ids of the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from safetensors import safe_open
from torch import Tensor

from specbench.cache import Cache
from specbench.errors import ModelError
from specbench.models.base import CAUSAL, Capability, Model, View
from specbench.models.decoder import LeanDecoder
from specbench.models.shape import Sizes
from specbench.models.state import State, read_tensors


class TargetShape(NamedTuple):
    """What a head's weights must fit.

    Attributes:
        source: What the target is called.
        family: Its `model_type` in transformers.
        width: C.
        vocab_size: V, rows of its embedding.
        layers: Number of its blocks.
    """

    source: str
    family: str
    width: int
    vocab_size: int
    layers: int

    @classmethod
    def of(cls, settings: Any, source: str) -> TargetShape:
        """Return the shape of a transformers configuration."""
        text = settings.get_text_config()
        return cls(
            source, text.model_type, text.hidden_size, text.vocab_size, text.num_hidden_layers
        )


@dataclass(frozen=True)
class HeadFiles:
    """The files of a published head, looked at and not read.

    Attributes:
        source: What the configuration said.
        revision: Hub revision, or None.
        settings: What its config.json says; empty where it has none.
        weights: Its weight files.
        shapes: The shape of each weight, by its published name.
        digest: Of everything that is read.
    """

    source: str
    revision: str | None
    settings: Mapping[str, Any]
    weights: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    digest: str

    def read(self) -> State:
        """Read the weights.

        Raises:
            ModelError: If a file is broken or holds more than tensors.
        """
        tensors: dict[str, Tensor] = {}
        for path in self.weights:
            tensors |= read_tensors(path)
        return State(tensors, self.weights[0])

    def one(self, name: str) -> Tensor:
        """Read one weight that `shapes` names."""
        for path in self.weights:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as opened:
                    if name in opened.keys():  # noqa: SIM118
                        found: Tensor = opened.get_tensor(name)
                        return found
            elif name in (tensors := read_tensors(path)):
                return tensors[name]
        raise self.unfit(f"it lacks the weight '{name}'")

    def expect(self, name: str, *shape: int) -> None:
        """Refuse a weight that is missing or of another shape.

        Raises:
            ModelError: With both shapes.
        """
        if name not in self.shapes:
            raise self.unfit(f"it lacks the weight '{name}'")
        if self.shapes[name] != shape:
            found = " x ".join(map(str, self.shapes[name]))
            raise self.unfit(f"'{name}' is {found} and not {' x '.join(map(str, shape))}")

    def fits(self, what: str, own: int, theirs: int, target: TargetShape) -> None:
        """Refuse a head that disagrees with its target about a number.

        Raises:
            ModelError: With both numbers.
        """
        if own != theirs:
            raise self.unfit(f"its {what} is {own} and the target's is {theirs}", target)

    def unfit(self, why: str, target: TargetShape | None = None) -> ModelError:
        """Return the error of a head that is broken, or that belongs to another target."""
        if target is None:
            return ModelError(
                f"The head '{self.source}' cannot be read", why, "Fetch its files again."
            )
        return ModelError(
            f"The head '{self.source}' does not belong to '{target.source}'",
            why,
            "Name the head that was trained for this target (docs/heads.md).",
        )


class Head(Model):
    """A head, loaded.

    Args:
        name: What it is called.
        target: The model that it drafts for: it computes there, over the same ids, as far.
        layers: Number of its blocks.

    Attributes:
        family: Its name in `schema.heads.HEADS`.
        taps: The target's states that it reads; see `models.base.Taps`.
    """

    family: ClassVar[str]
    taps: tuple[int, ...]
    engine = "lean"
    capabilities = frozenset({Capability.TREE_MASK, Capability.HIDDEN_STATES})

    def __init__(self, name: str, target: Model, layers: int) -> None:
        self.name = name
        self.vocab_size = target.vocab_size
        self.layers = layers
        self.context = target.context
        self.dtype = target.dtype
        self.device = target.device

    @classmethod
    def recognises(cls, files: HeadFiles) -> bool:
        """Say whether files are of this family, by their keys."""
        raise NotImplementedError

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse files that are incomplete or of another target, before weights are read.

        Raises:
            ModelError: With what does not fit.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, files: HeadFiles, target: Model) -> Self:
        """Read the weights, and take from the target what the head shares with it."""
        raise NotImplementedError

    @classmethod
    def random(cls, target: Model, width: int, seed: int) -> Self:
        """Return a head of random weights behind a target of `width` channels.

        Exactness must hold for any head: tests and audits take these.
        """
        raise NotImplementedError


class FeatureHead(Head):
    """A head that is fed a token with the feature of the token before it, and makes the next one.

    Entry i of its cache pairs token i + 1 with the feature of token i, and stands at position i.
    Its logits are of token i + 2. The features of committed tokens are the target's own; those of
    drafted tokens are what the head made of them.

    Args:
        body: Its blocks in the lean decoder's layout, behind what `inputs` joins.
        target: The model that it drafts for.

    Attributes:
        body: The same.
        made: The tap of `forward` that hands out the features that it makes, [1, T, F].
    """

    made: int

    def __init__(self, body: LeanDecoder, target: Model) -> None:
        super().__init__(body.name, target, body.layers)
        self.body = body

    @property
    def sizes(self) -> Sizes | None:
        """Those of its blocks; what joins token and feature is left out."""
        return self.body.sizes

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache for `batch` rows of at most `capacity` entries."""
        return self.body.new_cache(batch, capacity)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed entries, [1, T, ...] of `inputs`; return the logits of the tokens two ahead."""
        return self.body.forward(inputs, cache, view)

    def features(self, states: tuple[Tensor, ...]) -> Tensor:
        """Return the features [1, T, F] of the target's tapped states, each [1, T, C]."""
        raise NotImplementedError

    def inputs(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Return what `forward` is fed for tokens [1, T] behind features [1, T, F]."""
        raise NotImplementedError


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Return random weights in float64 that keep the size of what they multiply."""
    return torch.randn(shape, generator=generator, dtype=torch.float64) * shape[-1] ** -0.5
