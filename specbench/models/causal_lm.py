"""Any decoder-only checkpoint, through transformers' own modules behind the Model port.

Slower than the lean decoder, and the results say which engine ran. What the library is asked for
is its arithmetic alone: cache, rollback and the order among the tokens are ours
(`library_cache`, `library_masks`), because they change between releases and know no trees.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache as LibraryCache

from specbench.cache import Cache
from specbench.errors import ModelError
from specbench.models.base import CAUSAL, NO_SKIP, Capability, Model, Taps, View
from specbench.models.blocks import BLOCK_NAMES, Blocks
from specbench.models.library_cache import Entry, Looked, PortCache
from specbench.models.library_masks import Sight, seeing
from specbench.models.long_rope import LongRope, original_length
from specbench.models.masks import MaskTable
from specbench.models.running_states import (
    Mixer,
    MixerSearch,
    RunningStates,
    state_layers,
)
from specbench.models.shape import Sizes, explaining

_KINDS = {"full_attention", "sliding_attention", "chunked_attention", "attention", "mlp", "moe"}
"""Kinds of layers that keep tokens or nothing; those of `state_layers` come beside them."""
_COUNT_SLOTS = {"bloom", "mpt", "gpt_neo"}
_CACHE_NAMES = ("cache", "past_key_values", "cache_params")
_UNLIMITED = 1 << 20
_FIRST = 3
"""Tokens of the first forward, which tells what the layers keep."""


class CausalLM(Model):
    """A transformers causal language model behind the Model port.

    Args:
        module: The loaded `*ForCausalLM` module, in eval mode.
        name: What the model is called in results.

    Raises:
        ModelError: If the architecture keeps state that cannot be rolled back, or its module
            does not run.
    """

    engine = "transformers"

    def __init__(self, module: Any, name: str) -> None:
        self.check(module.config, name)
        config = module.config.get_text_config()
        self.name = name
        self._module = module
        self._config = config
        self.dtype: torch.dtype = module.dtype
        self.device: torch.device = module.get_input_embeddings().weight.device
        self.vocab_size: int = config.vocab_size
        self.context: int = _context(config)
        self.layers: int = config.num_hidden_layers
        self.capabilities = self.able(module.config)
        self._blocks = Blocks(module) if Capability.LAYER_SKIP in self.capabilities else None
        self._masks = MaskTable(0, self.dtype, self.device)
        takes = inspect.signature(module.forward).parameters
        cache_name = next((name for name in _CACHE_NAMES if name in takes), None)
        if cache_name is None:
            raise self._unrunnable("takes no cache of the library")
        self._cache_name: str = cache_name
        self._takes_positions = "position_ids" in takes
        self._takes_last = "logits_to_keep" in takes
        self._attention: str = config._attn_implementation or "eager"
        length = original_length(config)
        self._long_rope = LongRope(length, self._feed) if length is not None else None
        self._entries, self._states, self._mixers = self._look()

    @classmethod
    def check(cls, config: Any, name: str) -> None:
        """Refuse a configuration whose module cannot be decoded here, before it is loaded.

        Raises:
            ModelError: If it cannot.
        """
        text = config.get_text_config()
        types = getattr(text, "layer_types", None) or []
        states = state_layers(text)
        kinds = {kind for index, kind in enumerate(types) if index not in states} - _KINDS
        if config.is_encoder_decoder:
            kinds = {"encoder"}
        if kinds:
            raise ModelError(
                f"'{name}' cannot be decoded speculatively here",
                f"its '{text.model_type}' layers ({', '.join(sorted(kinds))}) keep a state that "
                "is not rolled back here",
                "Use a model whose layers are attention or keep a running state alone "
                "(docs/models.md lists what was tested).",
            )

    @classmethod
    def able(cls, config: Any) -> frozenset[Capability]:
        """Return what the module of a configuration will be able to do, before it is loaded.

        Trees need positions apart from slots, which an attention that counts slots (ALiBi, the
        local layers of GPT-Neo) has not, and a state for each branch, which running states have
        not.
        """
        text = config.get_text_config()
        if config.model_type in BLOCK_NAMES:
            return frozenset(Capability) - {Capability.FEATURES}
        counts_slots = text.model_type in _COUNT_SLOTS or getattr(text, "alibi", False)
        if counts_slots or state_layers(text):
            return frozenset()
        return frozenset({Capability.TREE_MASK})

    @torch.inference_mode()
    def _look(self) -> tuple[list[Entry | None], dict[int, Any], dict[int, Mixer]]:
        """Feed a few tokens and see what each layer keeps, and which modules keep a state."""
        states = state_layers(self._config)
        looked = [Looked() for _ in range(self.layers)]
        cache = LibraryCache(
            layers=[states.get(index, layer) for index, layer in enumerate(looked)]
        )
        search = MixerSearch(states, cache)
        tokens = torch.ones(1, _FIRST, dtype=torch.long, device=self.device)
        try:
            with search.watching(self._module):
                self._module(input_ids=tokens, use_cache=True, **{self._cache_name: cache})
            mixers = search.mixers()
        except Exception as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise self._unrunnable(f"says: {said}") from error
        return [layer.entry for layer in looked], states, mixers

    def _unrunnable(self, why: str) -> ModelError:
        return ModelError(
            f"'{self.name}' does not run behind specbench's cache",
            f"transformers' own module of '{self._config.model_type}' {why}",
            "Use another model (docs/models.md lists what was tested), or another transformers.",
        )

    @property
    def sizes(self) -> Sizes:
        """What its forwards read and compute, as far as its configuration tells."""
        weights = list(self._module.parameters())
        parameters = sum(weight.numel() for weight in weights)
        return Sizes(
            parameters=parameters,
            weight_bytes=sum(weight.nbytes for weight in weights),
            cache_bytes_per_token=sum(
                part.bytes for entry in self._entries if entry is not None for part in entry
            ),
            shape=explaining(self._config.to_dict(), self.name, parameters),
        )

    def new_cache(self, batch: int, capacity: int) -> PortCache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens.

        Raises:
            ModelError: If layers keep a running state and there are several rows.
        """
        if self._masks.capacity < capacity:
            self._masks = MaskTable(capacity, self.dtype, self.device)
        if not self._states:
            texts = self.device if self._long_rope is not None else None
            return PortCache(self._entries, batch, capacity, texts=texts)
        if batch > 1:
            raise ModelError(
                f"'{self.name}' decodes one sequence at a time",
                "its layers keep a running state, which is rolled back for one row only",
                "Use a method that does not decode several rows.",
            )
        states = RunningStates(self._states, self._mixers)
        return PortCache(self._entries, batch, capacity, states)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens behind each row's cached prefix; see `Model.forward`."""
        assert isinstance(cache, PortCache) and cache.padding is None
        if self._long_rope is not None:
            return self._long_rope.forward(inputs, cache, view)
        return self._feed(inputs, cache, view)

    def _feed(self, tokens: Tensor, cache: PortCache, view: View) -> Tensor:
        count, last, taps = tokens.shape[1], view.last, view.taps
        sight = Sight(self._masks, cache, count, view.mask, needs_mask=self._attention != "sdpa")
        if cache.states is not None:
            assert view.mask is None, "a running state has no branches"
            cache.states.begin(cache.lengths[0], count, cache.adapter)
        given: dict[str, Any] = {self._cache_name: cache.adapter}
        if self._takes_positions:
            given["position_ids"] = sight.positions.to(self.device).expand(len(tokens), -1)
        if self._takes_last:
            given["logits_to_keep"] = 0 if taps is not None and taps.every else last
        with ExitStack() as changes:
            changes.enter_context(seeing(sight, self._attention))
            if view.skip is not None or taps is not None:
                assert self._blocks is not None
                changes.enter_context(self._blocks.without(view.skip or NO_SKIP))
                changes.enter_context(self._blocks.tapped(taps or Taps(()), last))
            output = self._module(input_ids=tokens, use_cache=True, **given)
        if not (sight.asked or sight.plain):
            raise self._unrunnable("decides by itself who sees whom, so that trees go unseen")
        if cache.states is not None:
            cache.states.end(count)
        cache.advance(count)
        logits: Tensor = output.logits[:, -last:, : self.vocab_size]
        return logits if view.logits else logits[:, :0]


def _context(config: Any) -> int:
    """Return the longest sequence of a text configuration; a model without a limit has a large one.

    ALiBi and running states reach any length; what such a model was trained on stands in
    `max_seq_len` or `seq_length`, where the configuration says it.
    """
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        found = getattr(config, name, None)
        if found:
            return int(found)
    return _UNLIMITED
