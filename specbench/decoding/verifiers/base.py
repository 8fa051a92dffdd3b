"""What a verifier is given and what it must answer.

Shapes: B rows, N draft nodes, V vocabulary. Node 0 of `logits` is the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specbench.choices import BY_NUMBER, Choices
from specbench.clock import Clock
from specbench.decoding.reading import read
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.rng import Purpose, Streams
from specbench.transfer import to_device


class Verdict(NamedTuple):
    """Which path of the tree is kept, and the token after it.

    Attributes:
        path: Accepted nodes, from a child of the root downwards; may be empty.
        next_token: The target's token after the path (bonus or correction).
        tokens: The emitted ids: the accepted path and the next token.
        drafted: The token of every node, which came to the host with the verdict.
    """

    path: tuple[int, ...]
    next_token: int
    tokens: tuple[int, ...]
    drafted: Sequence[int] = ()


class ChainNumbers(NamedTuple):
    """Uniform numbers that decide what becomes of a chain.

    Attributes:
        tests: [B, N] for the acceptance of each token.
        following: [B, N + 1] for the token after so many accepted ones: corrections after
            rejections, and at the end the target's own draw.
    """

    tests: Tensor
    following: Tensor


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
        clock: Where the round's time is charged, if it is.
        stops: Tokens behind which nothing is emitted. On a device a tree may go on behind one.
        choices: Decides what is drawn.
    """

    tree: DraftTree
    logits: Tensor
    law: Law
    seen: Tensor | None
    streams: tuple[Streams, ...]
    positions: tuple[int, ...]
    clock: Clock | None = None
    stops: frozenset[int] = frozenset()
    choices: Choices = BY_NUMBER

    def read(self, tensor: Tensor) -> Any:
        """Return a tensor's values; a verdict needs one call. See `decoding.reading.read`."""
        return read(tensor, self.clock)

    def uniforms(self, purpose: Purpose, count: int) -> Tensor:
        """Return [B, count] uniform numbers of `count` positions from each row's first."""
        numbers = [
            streams.uniforms(position, count, purpose)
            for streams, position in zip(self.streams, self.positions, strict=True)
        ]
        return to_device(numbers, self.logits.device, torch.float64)

    @cached_property
    def chain_numbers(self) -> ChainNumbers:
        """The numbers that decide a chain, in one transfer."""
        count = self.tree.size
        rows = []
        for streams, position in zip(self.streams, self.positions, strict=True):
            tests = streams.uniforms(position, count, Purpose.ACCEPT)
            corrections = streams.uniforms(position, count, Purpose.RESIDUAL)
            bonus = streams.uniform(position + count, Purpose.SAMPLE)
            rows.append([*tests, *corrections, bonus])
        both = to_device(rows, self.logits.device, torch.float64)
        return ChainNumbers(both[:, :count], both[:, count:])

    def target_numbers(self) -> Tensor:
        """Return the number of the target's own draw at the root and every node, [B, N + 1]."""
        depths = (0, *self.tree.depths)
        rows = []
        for streams, position in zip(self.streams, self.positions, strict=True):
            by_depth = streams.uniforms(position, self.tree.depth + 1, Purpose.SAMPLE)
            rows.append([by_depth[depth] for depth in depths])
        return to_device(rows, self.logits.device, torch.float64)


class Verifier:
    """Turns a scored tree into one verdict for each row.

    Attributes:
        needs: What the model pair must have, such as "image" for a rule over codebooks.
        greedy_start: Whether the first token of a request is the target's argmax under every law.
    """

    needs: frozenset[str] = frozenset()
    greedy_start: bool = False

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
