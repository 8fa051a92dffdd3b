"""Layers that keep a running state: linear attention, state spaces, short convolutions.

Such a state cannot be cut like keys and values: what it was some tokens ago is gone. It is made
again. Copies of the state lie at a few earlier tokens, together with what went into each layer
since; taking tokens back restores the nearest copy and lets these layers alone, and none of the
others, run over the kept tokens again. Causality makes that exact: a later token never changed
what went in before it.

One row only, and chains only: a tree would need a state for every branch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin

from specbench.errors import ModelError

try:
    from transformers.cache_utils import DynamicCache
    from transformers.cache_utils import LinearAttentionCacheLayerMixin as StateLayer
except ImportError:  # transformers before its linear layers had a common cache
    StateLayer = None

_APART = 32
"""Tokens between two copies of the state, at least."""

_REACH = 64
"""Tokens that can be taken back at any time; more than any method drafts."""


def state_layers(config: Any) -> dict[int, Any]:
    """Return the library's cache layers that keep a running state, by their index, empty.

    Args:
        config: The text configuration.

    Returns:
        None of them where a layer keeps both a state and tokens, which is not rolled back here.
    """
    if StateLayer is None:
        return {}
    layers = DynamicCache(config=config).layers
    found = {index: layer for index, layer in enumerate(layers) if isinstance(layer, StateLayer)}
    return {} if any(isinstance(layer, CacheLayerMixin) for layer in found.values()) else found


class Mixer:
    """The module that reads and writes a layer's state.

    Args:
        module: It.
        index: Of its layer.
        holder: Name of the argument that takes the library's cache.
        inputs: [B, T, C], what went into it last.
        named: Whether its inputs are given by name.

    Attributes:
        fed: What went into it last.
    """

    def __init__(
        self, module: Any, index: int, holder: str, inputs: Tensor, *, named: bool
    ) -> None:
        self._module = module
        self._index = index
        self._holder = holder
        self._named = named
        self.fed = inputs
        module.register_forward_pre_hook(self._note, with_kwargs=True)

    def run(self, inputs: Tensor, cache: Any) -> Tensor:
        """Let inputs [B, T, C] move the state in a cache of the library; return the outputs."""
        return self._call(self._module, inputs, {self._holder: cache})

    def _call(self, function: Callable[..., Any], inputs: Tensor, others: dict[str, Any]) -> Tensor:
        if self._named:
            return function(**{**others, "hidden_states": inputs})
        return function(inputs, **others)

    def continues(self, cache: Any) -> bool:
        """Say whether several tokens at once go on from the state that one by one left.

        Some kernels begin every sequence with an empty state. The outputs then do not change
        with it; the states in the cache do change here.
        """
        layer = cache.layers[self._index]
        inputs = self.fed
        for kind in ("conv_states", "recurrent_states"):
            outputs = []
            if all(state is None for state in getattr(layer, kind).values()):
                continue
            for value in (0.0, 1.0):
                for tensor in _tensors_of(layer):
                    tensor.zero_()
                for tensor in getattr(layer, kind).values():
                    if tensor is not None:
                        tensor.fill_(value)
                outputs.append(self.run(inputs, cache).clone())
            if torch.equal(*outputs):
                return False
        return True

    def step(self) -> None:
        """Let it take tokens behind a state one by one."""
        whole = self._module.forward

        def stepped(*args: Any, **kwargs: Any) -> Any:
            inputs = kwargs["hidden_states"] if self._named else args[0]
            layer = kwargs[self._holder].layers[self._index]
            if inputs.shape[1] == 1 or not any(layer.has_previous_state.values()):
                return whole(*args, **kwargs)
            return torch.cat([self._call(whole, token, kwargs) for token in inputs.split(1, 1)], 1)

        self._module.forward = stepped

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fed = kwargs["hidden_states"] if self._named else args[0]


class MixerSearch:
    """Finds, during a first forward, the modules that use a running state.

    The innermost module at work when a layer's state is written is its mixer.

    Args:
        layers: The library's layers, by index; their methods are replaced for the search.
        cache: The library's cache that holds them.
    """

    def __init__(self, layers: Mapping[int, Any], cache: Any) -> None:
        self._layers = layers
        self._cache = cache
        self._at_work: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []
        self._found: dict[int, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Watch a forward that runs within the context."""
        hooks = []
        for module in model.modules():
            hooks.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        for index, layer in self._layers.items():
            for name in ("update_conv_state", "update_recurrent_state"):
                setattr(layer, name, self._noting(index, getattr(layer, name)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for layer in self._layers.values():
                for name in ("update_conv_state", "update_recurrent_state"):
                    layer.__dict__.pop(name, None)

    def mixers(self) -> dict[int, Mixer]:
        """Return the mixers by the index of their layer.

        Raises:
            TypeError: If one is called in a way that is not known.
        """
        if set(self._found) != set(self._layers):
            raise TypeError("some layers keep their running state outside of the cache")
        mixers = {index: self._mixer(index, *call) for index, call in sorted(self._found.items())}
        for mixer in mixers.values():
            if not mixer.continues(self._cache):
                mixer.step()
        return mixers

    def _mixer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Mixer:
        holders = [name for name, value in kwargs.items() if value is self._cache]
        others = {name for name, value in kwargs.items() if isinstance(value, Tensor)}
        if not holders or len(args) > 1 or others - {"hidden_states"}:
            raise TypeError(f"{type(module).__name__} is called in a way that cannot be repeated")
        inputs = args[0] if args else kwargs["hidden_states"]
        return Mixer(module, index, holders[0], inputs, named=not args)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._at_work.append((module, args, kwargs))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._at_work.pop()

    def _noting(self, index: int, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._found[index] = self._at_work[-1]
            return method(*args, **kwargs)

        return noted


@dataclass
class _Copy:
    """The state of every layer behind `position` tokens."""

    position: int
    tensors: list[Tensor]


@dataclass
class _Log:
    """What went into each mixer, in pieces of consecutive tokens."""

    pieces: list[tuple[int, list[Tensor]]] = field(default_factory=list)

    def since(self, start: int, end: int) -> list[Tensor]:
        """Return the inputs of the tokens from `start` to `end`, [B, T, C] for each mixer."""
        parts: list[list[Tensor]] = []
        for first, inputs in self.pieces:
            low, high = max(start - first, 0), min(end - first, inputs[0].shape[1])
            if low < high:
                parts.append([each[:, low:high] for each in inputs])
        return [torch.cat(of_one, 1) for of_one in zip(*parts, strict=True)]

    def cut(self, end: int) -> None:
        """Forget the tokens from `end` on."""
        self.pieces = [
            (first, [each[:, : end - first] for each in inputs])
            for first, inputs in self.pieces
            if first < end
        ]

    def drop(self, start: int) -> None:
        """Forget pieces that end before `start`."""
        self.pieces = [
            (first, inputs) for first, inputs in self.pieces if first + inputs[0].shape[1] > start
        ]


class RunningStates:
    """The running states of one cache.

    Args:
        layers: The library's layers, by index, as a first forward left them.
        mixers: The modules that use them, by index.
    """

    def __init__(self, layers: Mapping[int, Any], mixers: Mapping[int, Mixer]) -> None:
        self.layers = {index: copy.deepcopy(layer) for index, layer in layers.items()}
        self._mixers = mixers
        self._position = 0
        self._copies: list[_Copy] = []
        self._log = _Log()
        self._reset()

    def begin(self, position: int, count: int, cache: Any) -> None:
        """Stand behind `position` tokens, before `count` new ones are fed.

        Args:
            position: Tokens that the cache holds.
            count: New tokens.
            cache: The library's cache that holds these layers.

        Raises:
            ModelError: If so many tokens were taken back that no copy is left.
        """
        if position < self._position:
            self._go_back(position, cache)
        if position == 0:
            return
        last = self._copies[-1].position if self._copies else -_APART
        if position > last and (count > 1 or position - last >= _APART):
            self._copy(position)

    def end(self, count: int) -> None:
        """Count the tokens of the forward that ran; what went into the prompt's is not kept."""
        if self._position > 0:
            fed = [mixer.fed for mixer in self._mixers.values()]
            self._log.pieces.append((self._position, fed))
        self._position += count

    def _go_back(self, position: int, cache: Any) -> None:
        if position == 0:
            self._reset()
            return
        while self._copies and self._copies[-1].position > position:
            self._copies.pop()
        if not self._copies:
            raise ModelError(
                f"{self._position - position} tokens cannot be taken back",
                "layers with a running state keep copies of it for the last "
                f"{_REACH} tokens alone, and none within the prompt",
                "Use a method that takes back its drafts alone, or a model without such layers.",
            )
        found = self._copies[-1]
        for mine, theirs in zip(self._tensors(), found.tensors, strict=True):
            mine.copy_(theirs)
        self._log.cut(position)
        if found.position < position:
            inputs = self._log.since(found.position, position)
            for mixer, fed in zip(self._mixers.values(), inputs, strict=True):
                mixer.run(fed, cache)
            self._copy(position)
        self._position = position

    def _copy(self, position: int) -> None:
        """Keep a copy of the state, and forget what no one can ask for any more."""
        copies = self._copies
        if len(copies) > 1 and position - copies[-2].position < _APART:
            spare = copies.pop().tensors
            for mine, theirs in zip(spare, self._tensors(), strict=True):
                mine.copy_(theirs)
        else:
            spare = [tensor.clone() for tensor in self._tensors()]
        copies.append(_Copy(position, spare))
        while len(copies) > 1 and copies[1].position <= position - _REACH:
            copies.pop(0)
        self._log.drop(copies[0].position)

    def _reset(self) -> None:
        for layer in self.layers.values():
            layer.reset()
        self._position = 0
        self._copies = []
        self._log = _Log()

    def _tensors(self) -> list[Tensor]:
        return [tensor for layer in self.layers.values() for tensor in _tensors_of(layer)]


def _tensors_of(layer: Any) -> list[Tensor]:
    """Return the states of one layer of the library."""
    kinds = (layer.conv_states, layer.recurrent_states)
    return [tensor for kind in kinds for tensor in kind.values() if tensor is not None]
