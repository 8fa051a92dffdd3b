"""The blocks of transformers' modules: leaving sublayers out, and reading states between blocks.

A block of a known architecture adds its attention and its feed-forward part to the residual
stream. A sublayer is left out by standing a stub in its place for the time of one forward: the
stub computes nothing and adds zero. The norm before it still runs; it is the one part of the
sublayer that lies outside the swapped module.

Only architectures whose blocks were looked at are listed. Another module can still decode; it
then offers no layer skipping and no hidden states.

Shapes: B rows, T new tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from specbench.models.base import LayerSkip, Taps


class BlockNames(NamedTuple):
    """Where a module keeps its blocks and their two sublayers.

    Attributes:
        blocks: Path of the list of blocks below the `*ForCausalLM` module.
        attention: Attribute of a block.
        feed_forward: Attribute of a block.
    """

    blocks: str
    attention: str
    feed_forward: str


_LLAMA_LIKE = BlockNames("model.layers", "self_attn", "mlp")
_GPT2_LIKE = BlockNames("transformer.h", "attn", "mlp")

BLOCK_NAMES = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "llama", "mistral", "olmo2"), _LLAMA_LIKE),
    **dict.fromkeys(("phi", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2"), _LLAMA_LIKE),
    **dict.fromkeys(("gpt2", "gptj"), _GPT2_LIKE),
    "gpt_neox": BlockNames("gpt_neox.layers", "attention", "mlp"),
}
"""Architectures by their `model_type`, each checked by a test."""


class _Nothing(nn.Module):  # type: ignore[misc]
    """Stands for a sublayer that is left out."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return zero, broadcast over the residual stream."""
        stream: Tensor = args[0] if args else kwargs["hidden_states"]
        zero = stream.new_zeros((1, 1, 1))
        return zero if self._outputs == 1 else (zero, *[None] * (self._outputs - 1))


_NO_ATTENTION = _Nothing(2)
_NO_FEED_FORWARD = _Nothing(1)


class Blocks:
    """The blocks of one loaded module.

    Args:
        module: A `*ForCausalLM` module of transformers whose type is in `BLOCK_NAMES`.
    """

    def __init__(self, module: Any) -> None:
        self._names = BLOCK_NAMES[module.config.get_text_config().model_type]
        self._blocks: list[nn.Module] = list(module.get_submodule(self._names.blocks))
        self._head: nn.Module = module.get_output_embeddings()

    @contextmanager
    def without(self, skip: LayerSkip) -> Iterator[None]:
        """Leave sublayers out for the time of the context."""
        name = self._names
        swapped: list[tuple[dict[str, Any], str, Any]] = []
        try:
            for indices, attribute, stub in (
                (skip.attention, name.attention, _NO_ATTENTION),
                (skip.feed_forward, name.feed_forward, _NO_FEED_FORWARD),
            ):
                for index in indices:
                    children = self._blocks[index]._modules
                    swapped.append((children, attribute, children[attribute]))
                    children[attribute] = stub
            yield
        finally:
            for children, attribute, sublayer in swapped:
                children[attribute] = sublayer

    @contextmanager
    def tapped(self, taps: Taps, last: int) -> Iterator[None]:
        """Hand out states of the forward that runs within the context.

        Args:
            taps: Receives the states.
            last: Keep the states of only the last `last` tokens, and let the LM head see only
                those; 0 for all.
        """
        kept = 0 if taps.every else last
        seen: dict[int, Tensor] = {}

        def block_hook(index: int) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                state = output[0] if isinstance(output, tuple) else output
                seen[index] = state[:, -kept:]

            return hook

        def head_hook(module: nn.Module, args: Any) -> Any:
            seen[-1] = args[0][:, -kept:]
            return (args[0][:, -last:], *args[1:])

        with ExitStack() as hooks:
            for layer in set(taps.layers):
                if layer < 0:
                    handle = self._head.register_forward_pre_hook(head_hook)
                else:
                    handle = self._blocks[layer].register_forward_hook(block_hook(layer))
                hooks.callback(handle.remove)
            yield
        taps.states = [seen[layer] for layer in taps.layers]
