"""A target with its optional draft and tokenizer: what a decoder and a task are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from specbench.cache import Cache
from specbench.law import Law
from specbench.models.aligned import aligned
from specbench.models.base import Model, slots_for
from specbench.models.guided import GuidedModel
from specbench.models.heads.base import Head
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
        head: Trained weights that draft behind the target's states, or None.
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
    head: Head | None = None
    image: ImageSide | None = None
    numbering: Numbering | None = None
    about: About = About()
    _laws: dict[Any, ModelPair] = field(default_factory=dict, repr=False)
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
        models = (self.target, *self.drafts)
        guided = [model for model in models if isinstance(model, GuidedModel)]
        if self.image is None or self.image.grid.text or self.numbering is not None:
            return
        if len(guided) < len(models):
            return
        self.numbering = Numbering.of_picture(self.image, self.target.vocab_size)
        self.image = NumberedPictures(self.image, self.numbering)
        for model in guided:
            model.number(self.numbering)
        self._caches.clear()

    def described(self) -> dict[str, Any]:
        """Return the provenance of each checkpoint with the sizes of the model made of it.

        The sizes follow from the checkpoint, so that a job's identity has no need of them.
        """
        about = {
            role: dict(found) if isinstance(found, Mapping) else found
            for role, found in self.provenance.items()
        }
        named = {"target": self.target, "draft": self.draft, "head": self.head}
        named |= {f"draft_{number}": draft for number, draft in enumerate(self.more_drafts, 2)}
        for role, model in named.items():
            sizes = None if model is None else model.sizes
            if sizes is not None and isinstance(about.get(role), dict):
                about[role].update(sizes.record())
        return about

    def published(self, tokens: Sequence[int]) -> list[int]:
        """Return the published ids of tokens, as results hold them."""
        return list(tokens) if self.numbering is None else self.numbering.published(tokens)

    def numbers(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens of published ids: what the models read."""
        return list(ids) if self.numbering is None else self.numbering.numbers(ids)

    def under(self, law: Law) -> ModelPair:
        """Return the pair with which a request of a law decodes, over the same loaded models.

        Pictures are mixed as the law's guidance says, so that requests of different laws can take
        turns; a pair of text is one for all laws.
        """
        key = (law.guidance, law.text_top_k)
        if key not in self._laws:
            own = (self.target, *self.drafts)
            target, *drafts = (model.under(law) for model in own)
            if all(one is other for one, other in zip((target, *drafts), own, strict=True)):
                return self
            draft = drafts[0] if drafts else None
            others = tuple(drafts[1:])
            self._laws[key] = replace(
                self, target=target, draft=draft, more_drafts=others, _caches={}
            )
        return self._laws[key]

    def settle(self, tokens: int = 0) -> None:
        """Let the engines do what must not happen while a generation is timed.

        Args:
            tokens: Of the next prompt and its answer: caches that graphs were captured for are
                made large enough beforehand.
        """
        models = (self.target, *self.drafts)
        if not any(model.captures for model in models):
            return
        room = tokens + _RESERVE
        for role, model in self._roles():
            slots = slots_for(room, model.least_capacity)
            self._caches[role] = [
                cache if cache.capacity >= room else model.grow(cache, slots)
                for cache in self._caches.get(role, ())
            ]
        for model in models:
            model.settle()

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
            slots = slots_for(capacity, model.least_capacity)
            cache = model.new_cache(1, slots) if cache is None else model.grow(cache, slots)
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
