"""What a draft tree grows from: a draft model, or a head behind the target's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from specbench.decoding.session import Role
from specbench.decoding.tree import TreeMask
from specbench.law import History, Law
from specbench.models.base import Taps
from specbench.models.heads.base import FeatureHead
from specbench.transfer import to_device


class Ground(Protocol):
    """Gives logits after the committed text and after nodes, with a state of its own for each.

    A state is known by its slot: 0 is the newest committed token's, and fed nodes follow in their
    order. Shapes: n nodes of one call, W slots in use, V ids of the target.

    Attributes:
        law: What drafts are drawn from.
        history: The committed tokens, as far as the law needs them.
        device: Where tokens must live and logits appear.
    """

    law: Law
    history: History
    device: torch.device

    def plant(self, committed: Sequence[int]) -> Tensor:
        """Take in what it has not seen of the committed text; return the logits after it, [1, V].

        All nodes of an earlier tree are forgotten.
        """

    def feed(self, tokens: Tensor, parents: Tensor | None, mask: TreeMask | None) -> Tensor:
        """Take in nodes and return the logits after each, [n, V].

        Args:
            tokens: [n] of the nodes, in the target's ids.
            parents: [n] slots of their parents; None for the next token of a chain.
            mask: Which of the W slots each node sees, its own last; None for a chain.
        """

    def keep(self, slots: Sequence[int]) -> None:
        """Keep the states of accepted slots, 0 first, and forget the others."""


class DraftModel:
    """A model at work as the ground of one tree: a node's state is its slot of the cache.

    Args:
        role: The model; everything committed before the root, or less, is in its cache.
    """

    def __init__(self, role: Role) -> None:
        self.law = role.law
        self.history = role.history
        self.device = role.model.device
        self._role = role
        self._base = 0

    def plant(self, committed: Sequence[int]) -> Tensor:
        """Feed what the cache lacks of the committed text."""
        role = self._role
        fed = to_device([list(committed[role.cache.lengths[0] :])], self.device)
        logits = role.feed(fed, last=1)[:, -1]
        self._base = role.cache.lengths[0] - 1
        return logits

    def feed(self, tokens: Tensor, parents: Tensor | None, mask: TreeMask | None) -> Tensor:
        """Feed nodes in one forward; a mask says all that parents do."""
        return self._role.feed(tokens[None], mask)[0]

    def keep(self, slots: Sequence[int]) -> None:
        """Keep slots of the cache."""
        self._role.cache.keep([self._base], [slots])


class Features:
    """A head at work as the ground of one tree: a node's state is its feature and its slot.

    The head's cache holds an entry for each committed token but the first, made of the target's
    own features; entries of drafted tokens are forgotten with the tree, and what is accepted is
    fed again with the features that the target gave it.

    Args:
        role: The head.
        head: The same, as what it is.
        features: [1, n, F] the target's features that the cache lacks: of all committed tokens
            but the newest, from the cache's length on.
    """

    def __init__(self, role: Role, head: FeatureHead, features: Tensor) -> None:
        self.law = role.law
        self.history = role.history
        self.device = role.model.device
        self._role = role
        self._head = head
        self._features = features
        self._made = features[0, :0]  # row i is the feature that slot i made
        self._base = 0

    def plant(self, committed: Sequence[int]) -> Tensor:
        """Feed the true features, each with the token behind it."""
        start = self._role.cache.lengths[0] + 1
        tokens = to_device([list(committed[start:])], self.device)
        logits = self._feed(tokens, self._features, last=1)
        self._base = self._role.cache.lengths[0]
        return logits[:, -1]

    def feed(self, tokens: Tensor, parents: Tensor | None, mask: TreeMask | None) -> Tensor:
        """Feed nodes with the features that were made of their parents."""
        made = self._made
        behind = made[-1:] if parents is None else made[parents]
        logits = self._feed(tokens[None], behind[None], mask)[0]
        self._made = torch.cat([made, self._made])
        return logits

    def keep(self, slots: Sequence[int]) -> None:
        """Forget every drafted entry: none was made of a true feature."""
        self._role.cache.truncate([self._base])

    def _feed(
        self, tokens: Tensor, features: Tensor, mask: TreeMask | None = None, last: int = 0
    ) -> Tensor:
        taps = Taps((self._head.made,))
        logits = self._role.feed(self._head.inputs(tokens, features), mask, last, taps)
        self._made = taps.states[0][0]
        return logits
