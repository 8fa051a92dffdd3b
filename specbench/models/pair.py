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
    _caches: dict[str, list[Cache]] = field(default_factory=dict, repr=False)

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
        room = tokens + _RESERVE
        for role, model in self._roles():
            self._caches[role] = [
                cache
                if cache.capacity >= room
                else grown(model, cache, slots_for(room, least_capacity(model)))
                for cache in self._caches.get(role, ())
            ]
        for model in models:
            settle(model)

    def target_cache(self, capacity: int) -> Cache:
        """Return a cache of the target for a look between requests; the next one takes it over."""
        return self._glance("target", self.target, capacity)

    def draft_cache(self, capacity: int, index: int = 0) -> Cache:
        """Return a cache of one of `drafts` for a look between requests."""
        return self._glance(f"draft {index}", self.drafts[index], capacity)

    def lend(self, role: str, model: Model, capacity: int) -> Cache:
        """Return an empty cache that nobody else has, until it is given back.

        One that was given back is used again, so that no generation pays for allocation.

        Args:
            role: For what, as the idle ones are kept: "target", "draft 0".
            model: Whose cache.
            capacity: Tokens that it must hold.
        """
        idle = self._caches.setdefault(role, [])
        cache = idle.pop() if idle else None
        if cache is None or cache.capacity < capacity:
            cache = grown(model, cache, slots_for(capacity, least_capacity(model)))
        cache.truncate([0] * len(cache.lengths))
        return cache

    def give_back(self, role: str, cache: Cache) -> None:
        """Take back a cache that was lent."""
        self._caches.setdefault(role, []).append(cache)

    def _glance(self, role: str, model: Model, capacity: int) -> Cache:
        cache = self.lend(role, model, capacity)
        self.give_back(role, cache)
        return cache

    def _roles(self) -> list[tuple[str, Model]]:
        """Return what the idle caches of each model are kept under."""
        drafts = [(f"draft {index}", model) for index, model in enumerate(self.drafts)]
        return [("target", self.target), *drafts]
