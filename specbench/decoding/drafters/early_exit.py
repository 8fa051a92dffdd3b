"""The target's first blocks draft, and verification goes on where they left off: LayerSkip.

Elhoushi et al. 2024, "LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding"
(arXiv:2404.16710), section 4.3, read in github.com/facebookresearch/LayerSkip
(self_speculation/self_speculation_generator.py, llama_model_utils.py).

A draft token passes the blocks before the exit, the final norm and the LM head. The states that
enter the exit block are kept, and so are the keys and values of the blocks before it. To verify,
the blocks before the exit run on the last drafted token alone, and the others on all tokens'
states: together they are the very forward of the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Plan, Prefill
from specbench.decoding.growth import Growth
from specbench.decoding.ranges import check_whole
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree, TreeMask
from specbench.errors import ConfigError
from specbench.models.base import AncestorMask, Taps, View
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class EarlyExit(Drafter):
    """Draft chains with the target's first blocks.

    Args:
        exit_layer: Blocks that draft; None for a quarter of them, as 8 of 32 in the release.

    Raises:
        ConfigError: If it is less than one.
    """

    needs = frozenset({"features", "hidden_states"})

    def __init__(self, exit_layer: int | None = None) -> None:
        if exit_layer is not None:
            check_whole("exit_layer", exit_layer, 1)
        self._exit_layer = exit_layer

    def prepare(self, models: ModelPair) -> None:
        """Refuse an exit that the target does not have.

        Raises:
            ConfigError: With the allowed range.
        """
        layers = models.target.layers
        if self.exit_of(models) > layers:
            raise ConfigError(
                f"exit_layer={self._exit_layer} is not possible",
                f"the target of '{models.name}' has {layers} blocks",
                f"Choose 1 to {layers}.",
            )

    def exit_of(self, models: ModelPair) -> int:
        """Return the number of blocks that draft for a pair."""
        return self._exit_layer or max(models.target.layers // 4, 1)

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Draft with the target, which has read the prompt already."""
        return EarlyDrafting(session, self.exit_of(session.models))


class EarlyDrafting(Drafting):
    """One request's drafts by the target's first blocks, and their verification by the others.

    Args:
        session: The request.
        exit_layer: Blocks that draft.
        ground: What chains grow from; None for these blocks alone.

    Attributes:
        exit_layer: The same; a subclass may change it between rounds.
        all_blocks: Whether the states behind every block are kept, and not only the exit's.
    """

    all_blocks = False

    def __init__(self, session: Session, exit_layer: int, ground: Shallow | None = None) -> None:
        self.exit_layer = exit_layer
        self._ground = ground or Shallow(session)

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return a chain that the first blocks drew.

        Raises:
            ConfigError: If the topology branches.
        """
        if plan.topology.several:
            raise ConfigError(
                "An early exit drafts chains alone",
                "the keys of its first blocks are kept for the verification, slot by slot",
                "Use the topology specbench.decoding.topologies.chain.Chain.",
            )
        last = self.exit_layer - 1
        self._ground.clear(tuple(range(last + 1)) if self.all_blocks else (last,))
        depth = plan.levels
        if depth < 1:
            return None
        return plan.topology.grow(Growth(self._ground, session, plan.length, depth, 0))

    def score(
        self, session: Session, fed: Tensor, mask: AncestorMask | None, taps: Taps | None
    ) -> Tensor:
        """Finish what the draft began; see `Drafting.score`.

        Both parts together are counted as one forward of the target.
        """
        target, tokens = session.target, self._ground.states
        if not tokens:
            return session.feed(fed, mask, taps=taps)
        start, wanted = target.cache.lengths[0] - len(tokens), taps.layers if taps else ()
        if len(tokens) < fed.shape[1]:
            # The target's work, and no forward of its own: it is counted with the blocks behind.
            early = Taps(self._ground.layers)
            view = View(taps=early, last_layer=self.exit_layer - 1, logits=False)
            target.model.forward(fed[:, len(tokens) :], target.cache, view)
            tokens.append(early.states)
        states = [torch.cat(parts, 1) for parts in zip(*tokens, strict=True)]
        found = dict(zip(self._ground.layers, states, strict=True))
        target.cache.truncate([start])
        late = Taps(tuple(layer for layer in wanted if layer not in found))
        logits = target.look(states[-1], View(first_layer=self.exit_layer, taps=late))
        if taps is not None:
            found |= zip(late.layers, late.states, strict=True)
            taps.states = [found[layer] for layer in wanted]
        session.clock.lap(Segment.TARGET)
        return logits


class Shallow:
    """The first blocks as the ground of one chain; see `decoding.ground.Ground`.

    Args:
        session: The request, whose target's cache it writes into.

    Attributes:
        layers: Blocks whose states are kept, the last one that drafts at the end.
        states: For every forward of the chain, the states of these blocks, each [1, 1, C].
    """

    def __init__(self, session: Session) -> None:
        self._role = session.drafting(session.target.model, session.target.cache)
        self.law = self._role.law
        self.history = self._role.history
        self.device = self._role.model.device
        self.clear((0,))

    def clear(self, layers: tuple[int, ...]) -> None:
        """Forget the chain; the next one leaves behind the last of these blocks."""
        self.layers = layers
        self.states: list[list[Tensor]] = []

    def plant(self, committed: Sequence[int]) -> Tensor:
        """Feed the newest token."""
        return self._pass(to_device([committed[-1:]], self.device))

    def feed(self, tokens: Tensor, parents: Tensor | None, mask: TreeMask | None) -> Tensor:
        """Feed the next token of the chain."""
        return self._pass(tokens[None])

    def keep(self, slots: Sequence[int]) -> None:
        """Keep nothing: verification writes the slots anew."""

    def _pass(self, tokens: Tensor) -> Tensor:
        taps = Taps(self.layers)
        logits = self._role.look(tokens, View(last=1, taps=taps, last_layer=self.layers[-1]))
        self.states.append(taps.states)
        return logits[:, -1]
