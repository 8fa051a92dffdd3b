"""A target with its optional draft and tokenizer: what a decoder and a task are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specbench.cache import Cache
from specbench.law import Law
from specbench.models.aligned import aligned
from specbench.models.base import Model, grown, least_capacity, settle, slots_for
from specbench.models.image import ImageSide
from specbench.models.numbering import NumberedPictures, Numbering

_RESERVE = 512
"""Slots beyond prompt and answer: more than any method reserves for drafts."""


@dataclass(frozen=True)
class About:
    """What follows from the checkpoints and is told beside the numbers; no part of identities.

    Attributes:
        dtype_reason: Why the models run in their dtype; empty where it was asked for.
        defaults: What the target's generation_config.json asks of a law (`models.defaults`).
        notes: Sentences on what is odd in the checkpoints.
    """

    dtype_reason: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class ModelPair:
    """A target model, an optional draft model, and the text side of both.

    Attributes:
        name: Model id in results.
        target: The model whose law is decoded.
        draft: A cheaper model over the same vocabulary, or None. Where its ids are fewer or
            more than the target's, it becomes an `AlignedDraft`; so do `more_drafts`.
        tokenizer: A transformers tokenizer, or None for models without text.
        stop_ids: Tokens that end an answer.
        provenance: Revision and digest of each checkpoint.
        more_drafts: Further draft models, for methods that draft with several.
        image: The pictures' side of an image model: its grid, prompts, codebook and pixels.
        numbering: How an image pair numbers its tokens; None where ids are the published ones.
        about: What else is known of the checkpoints.
    """

    name: str
    target: Model
    draft: Model | None = None
    tokenizer: Any = None
    stop_ids: frozenset[int] = frozenset()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    more_drafts: tuple[Model, ...] = ()
    image: ImageSide | None = None
    numbering: Numbering | None = None
    about: About = About()
    _caches: dict[str, Cache] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Let every draft speak of the target's ids."""
        if self.draft is not None:
            self.draft = aligned(self.draft, self.target)
        self.more_drafts = tuple(aligned(draft, self.target) for draft in self.more_drafts)

    @property
    def drafts(self) -> tuple[Model, ...]:
        """All draft models, in the order in which they are named."""
        return ((self.draft,) if self.draft is not None else ()) + self.more_drafts

    @property
    def context(self) -> int:
        """Longest sequence that every model of the pair accepts, in tokens."""
        return min(model.context for model in (self.target, *self.drafts))

    def narrow(self) -> None:
        """Let the laws of an image pair cover what a picture can hold, and nothing else.

        From then on its tokens are numbers and not published ids. Text pairs stay as they are,
        and so do models that write free text before they draw.
        """
        models: tuple[Any, ...] = (self.target, *self.drafts)
        if self.image is None or self.image.grid.text:
            return
        if self.numbering is not None or not all(hasattr(model, "number") for model in models):
            return
        self.numbering = Numbering.of_picture(self.image, self.target.vocab_size)
        self.image = NumberedPictures(self.image, self.numbering)
        for model in models:
            model.number(self.numbering)
        self._caches.clear()

    def published(self, tokens: Sequence[int]) -> list[int]:
        """Return the published ids of tokens, as results hold them."""
        return list(tokens) if self.numbering is None else self.numbering.published(tokens)

    def numbers(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens of published ids: what the models read."""
        return list(ids) if self.numbering is None else self.numbering.numbers(ids)

    def bind(self, law: Law) -> None:
        """Let image models mix their conditioning rows as a law says; text models have none."""
        for model in (self.target, *self.drafts):
            guide = getattr(model, "guide", None)
            if guide is not None:
                guide(law)
        self._caches.clear()

    def settle(self, tokens: int = 0) -> None:
        """Let the engines do what must not happen while a generation is timed.

        Args:
            tokens: Of the next prompt and its answer: caches that graphs were captured for are
                made large enough beforehand.
        """
        models = (self.target, *self.drafts)
        if all(getattr(model, "settle", None) is None for model in models):
            return
        for role, model in self._roles():
            cache = self._caches.get(role)
            if cache is not None and cache.capacity < tokens + _RESERVE:
                self._caches[role] = grown(model, cache, self._room(model, tokens + _RESERVE))
        for model in models:
            settle(model)

    def target_cache(self, capacity: int) -> Cache:
        """Return the target's cache, empty, with room for `capacity` tokens."""
        return self._cache("target", self.target, capacity)

    def draft_cache(self, capacity: int, index: int = 0) -> Cache:
        """Return the cache of one of `drafts`, empty, with room for `capacity` tokens."""
        return self._cache(f"draft {index}", self.drafts[index], capacity)

    def _cache(self, role: str, model: Model, capacity: int) -> Cache:
        """Reuse one buffer for all requests, so that no generation pays for allocation."""
        cache = self._caches.get(role)
        if cache is None or cache.capacity < capacity:
            cache = grown(model, cache, self._room(model, capacity))
            self._caches[role] = cache
        cache.truncate([0] * len(cache.lengths))
        return cache

    def _roles(self) -> list[tuple[str, Model]]:
        """Return what `_caches` calls the cache of each model."""
        drafts = [(f"draft {index}", model) for index, model in enumerate(self.drafts)]
        return [("target", self.target), *drafts]

    def _room(self, model: Model, capacity: int) -> int:
        """Return the slots of a cache that need not grow soon."""
        return slots_for(capacity, least_capacity(model))
