"""What a verifier is given and what it must answer.

Shapes: B rows, N draft nodes, V vocabulary. Node 0 of `logits` is the root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.rng import Purpose, Streams


class Verdict(NamedTuple):
    """Which path of the tree is kept, and the token after it.

    Attributes:
        path: Accepted nodes, from a child of the root downwards; may be empty.
        next_token: The target's token after the path (bonus or correction).
        tokens: The emitted ids: the accepted path and the next token.
    """

    path: tuple[int, ...]
    next_token: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Scored:
    """A tree with the target's logits at the root and at every node.

    Attributes:
        tree: The draft.
        logits: [B, N + 1, V].
        law: The target's law.
        seen: [B, N + 1, V] bool, each node's own history; None where the law needs none.
        streams: Random numbers of each row's request.
        positions: Per row, absolute position of the first token to emit.
    """

    tree: DraftTree
    logits: Tensor
    law: Law
    seen: Tensor | None
    streams: tuple[Streams, ...]
    positions: tuple[int, ...]

    def uniforms(self, purpose: Purpose, count: int) -> Tensor:
        """Return [B, count] uniform numbers of `count` positions from each row's first."""
        numbers = [
            streams.uniforms(position, count, purpose)
            for streams, position in zip(self.streams, self.positions, strict=True)
        ]
        return torch.tensor(numbers, dtype=torch.float64, device=self.logits.device)

    def numbers(self, purpose: Purpose, count: int, offset: int = 0) -> Tensor:
        """Return [B, count] independent uniform numbers of this round, for trees."""
        numbers = [
            streams.numbers(position, count, purpose, offset)
            for streams, position in zip(self.streams, self.positions, strict=True)
        ]
        return torch.tensor(numbers, dtype=torch.float64, device=self.logits.device)


class Verifier:
    """Turns a scored tree into one verdict for each row.

    Attributes:
        needs: What the model pair must have, such as "image" for a rule over codebooks.
    """

    needs: frozenset[str] = frozenset()

    def prepare(self, models: ModelPair) -> None:
        """Look at the loaded models once, before anything is timed."""

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return which path is accepted and which token follows it, for each row."""
        raise NotImplementedError


def require_chain(tree: DraftTree, verifier: str) -> None:
    """Refuse a tree that branches.

    Raises:
        ConfigError: If a verifier of chains was composed with a topology that branches.
    """
    if not tree.is_chain:
        raise ConfigError(
            f"{verifier} cannot verify a tree that branches",
            "It judges the tokens of one chain together",
            "Use the topology specbench.decoding.topologies.chain.Chain, or a verifier of trees.",
        )
