"""The target's first blocks and an adapter draft: Kangaroo; see `models.heads.kangaroo`.

Read in github.com/Equationliu/Kangaroo (evaluation/inference_kangaroo.py). Verification goes on
from the states that drafting left behind the first blocks, the last token's included, as in
`early_exit`. After full acceptance the adapter has not seen the last drafted token: its state goes
in before the newest one's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafting, Outcome, Prefill
from specbench.decoding.drafters.early_exit import EarlyDrafting, EarlyExit, Shallow
from specbench.decoding.session import Session
from specbench.models.base import Taps, View
from specbench.models.pair import ModelPair


class Kangaroo(EarlyExit):
    """Draft chains with the target's first blocks, the pair's adapter and the LM head.

    Args:
        exit_layer: Blocks that draft; the adapter was trained behind so many.

    Raises:
        ConfigError: If it is less than one.
    """

    needs = frozenset({"head", "features", "hidden_states"})
    prompt_states = True

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the state behind the first blocks."""
        return (self.exit_of(models) - 1,)

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Feed the adapter the prompt's states."""
        ground = Adapted(session, prefill.hidden[0])
        session.clock.lap(Segment.DRAFT)
        return _KangarooDrafting(session, self.exit_of(session.models), ground)


class _KangarooDrafting(EarlyDrafting):
    """One request's drafts."""

    def __init__(self, session: Session, exit_layer: int, ground: Adapted) -> None:
        super().__init__(session, exit_layer, ground)
        self._adapted = ground

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Keep what the adapter saw of the accepted tokens, and what it has yet to see."""
        self._adapted.settle(outcome.kept[0], len(session.committed) - 1)


class Adapted(Shallow):
    """First blocks and adapter as the ground of one chain.

    A pass through both is one forward of the draft.

    Args:
        session: The request.
        states: [1, T, C] of the prompt behind the first blocks.
    """

    def __init__(self, session: Session, states: Tensor) -> None:
        super().__init__(session)
        self._head = session.head()
        self._head.look(states, View(last=1, logits=False))
        self._unseen = states[:, :0]

    def settle(self, states: Tensor, cached: int) -> None:
        """Forget drafted states, and keep true ones that the adapter has not seen.

        Args:
            states: [1, n, C] of the newest token before the round and of the accepted ones.
            cached: Committed tokens but the newest.
        """
        cache, known = self._head.cache, torch.cat([self._unseen, states], 1)
        cache.truncate([min(cache.lengths[0], cached)])
        self._unseen = known[:, known.shape[1] - (cached - cache.lengths[0]) :]

    def _pass(self, tokens: Tensor) -> Tensor:
        taps, head = Taps(self.layers), self._head
        view = View(taps=taps, last_layer=self.layers[-1], logits=False)
        self._role.look(tokens, view)
        self.states.append(taps.states)
        states = torch.cat([self._unseen, taps.states[-1]], 1)
        self._unseen = states[:, :0]
        return head.model.forward(states, head.cache, View(last=1))[:, -1]
