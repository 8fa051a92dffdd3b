"""Any decoder-only checkpoint, through transformers' own modules behind the Model port.

Slower than the lean decoder, and the results say which engine ran. The library's cache API
changes between releases, so the storage is ours: the module is handed an adapter whose layers
write into a preallocated `KVCache`, and rollback never touches the library.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache as LibraryCache
from transformers.cache_utils import CacheLayerMixin

from specbench.cache import Cache, KVCache
from specbench.errors import ModelError
from specbench.models.base import AncestorMask, Capability, LayerSkip, Taps
from specbench.models.blocks import BLOCK_NAMES, Blocks
from specbench.models.masks import MaskTable
from specbench.models.shape import Sizes, explaining

_ATTENTION_KINDS = {"full_attention", "sliding_attention"}


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of the library's cache interface, stored in ours."""

    def __init__(self, index: int, store: PortCache) -> None:
        super().__init__()
        self._index = index
        self._store = store
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: storage is allocated beforehand."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values; return all of them."""
        return self._store.write(self._index, key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length of all keys after the new ones, and their offset."""
        return max(self._store.lengths) + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of cached tokens of the longest row."""
        return max(self._store.lengths)

    def get_max_length(self) -> int:
        """Return the capacity."""
        return self._store.capacity


class PortCache(KVCache):
    """A `KVCache` that transformers' modules can write into."""

    def adapter(self) -> LibraryCache:
        """Return the library's view of this cache."""
        return LibraryCache(layers=[_Layer(index, self) for index in range(len(self.keys))])


class CausalLM:
    """A transformers causal language model behind the Model port.

    Args:
        module: The loaded `*ForCausalLM` module, in eval mode.
        name: What the model is called in results.

    Raises:
        ModelError: If the architecture keeps state that cannot be rolled back.
    """

    engine = "transformers"

    def __init__(self, module: Any, name: str) -> None:
        config = module.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or []) - _ATTENTION_KINDS
        if kinds or module.config.is_encoder_decoder:
            raise ModelError(
                f"'{name}' cannot be decoded speculatively here",
                f"its '{config.model_type}' layers ({', '.join(sorted(kinds)) or 'encoder'}) "
                "keep a state that cannot be rolled back",
                "Use a decoder-only attention model.",
            )
        self.name = name
        self._module = module
        self._config = config
        self.dtype: torch.dtype = module.dtype
        self.device: torch.device = module.get_input_embeddings().weight.device
        self.vocab_size: int = config.vocab_size
        self.context: int = config.max_position_embeddings
        sliding = getattr(config, "sliding_window", None)
        slides = "sliding_attention" in (getattr(config, "layer_types", None) or [])
        if sliding and (slides or not hasattr(config, "layer_types")):
            self.context = min(self.context, sliding)
        heads = config.num_attention_heads
        self._shape = (
            config.num_hidden_layers,
            getattr(config, "num_key_value_heads", None) or heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
        )
        self.capabilities = self.able(module.config)
        self.layers: int = config.num_hidden_layers
        self._blocks = Blocks(module) if Capability.LAYER_SKIP in self.capabilities else None
        self._masks = MaskTable(0, self.dtype, self.device)

    @classmethod
    def able(cls, config: Any) -> frozenset[Capability]:
        """Return what the module of a configuration will be able to do, before it is loaded."""
        if config.get_text_config().model_type in BLOCK_NAMES:
            return frozenset(Capability)
        return frozenset({Capability.TREE_MASK})

    @property
    def sizes(self) -> Sizes:
        """What its forwards read and compute, as far as its configuration tells."""
        weights = list(self._module.parameters())
        parameters = sum(weight.numel() for weight in weights)
        layers, heads, width = self._shape
        return Sizes(
            parameters=parameters,
            weight_bytes=sum(weight.nbytes for weight in weights),
            cache_bytes_per_token=2 * layers * heads * width * self.dtype.itemsize,
            shape=explaining(self._config.to_dict(), self.name, parameters),
        )

    def new_cache(self, batch: int, capacity: int) -> PortCache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        if self._masks.capacity < capacity:
            self._masks = MaskTable(capacity, self.dtype, self.device)
        layers, heads, width = self._shape
        return PortCache(layers, batch, heads, capacity, width, self.dtype, self.device)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        cache: Cache,
        *,
        mask: AncestorMask | None = None,
        last: int = 0,
        skip: LayerSkip | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """Feed new tokens behind each row's cached prefix; see `Model.forward`."""
        assert isinstance(cache, PortCache) and cache.padding is None
        rows, count = tokens.shape
        starts = torch.tensor(cache.lengths, device=self.device)[:, None]
        offsets = torch.arange(count)
        if mask is not None:
            offsets = self._masks.offsets(mask)
        if not cache.uniform:
            visible = self._masks.ragged(cache.lengths, count, mask)
        else:
            start = cache.lengths[0]
            table = self._masks.chain(start, count) if mask is None else None
            visible = self._masks.tree(mask, start) if table is None and mask else table
            assert visible is not None
            visible = visible.expand(rows, 1, *visible.shape)
        with ExitStack() as changes:
            if skip is not None:
                assert self._blocks is not None
                changes.enter_context(self._blocks.without(skip))
            if taps is not None:
                assert self._blocks is not None
                changes.enter_context(self._blocks.tapped(taps, last))
            output = self._module(
                input_ids=tokens,
                attention_mask=visible,
                position_ids=starts + offsets.to(self.device),
                past_key_values=cache.adapter(),
                use_cache=True,
                logits_to_keep=0 if taps is not None and taps.every else last,
            )
        cache.advance(count)
        logits: Tensor = output.logits
        return logits[:, -last:, : self.vocab_size]
