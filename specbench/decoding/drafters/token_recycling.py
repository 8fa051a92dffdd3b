"""Draft from the candidates that the target itself thought likely after each token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.ranges import check_number
from specbench.decoding.session import Session
from specbench.decoding.topologies.static_tree import StaticTree, TreeShape
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.transfer import to_device


class Level(NamedTuple):
    """One level of the template.

    Attributes:
        parents: [n] place of each node's parent within the level above.
        ranks: [n] which of its parent's candidates each node holds.
    """

    parents: Tensor
    ranks: Tensor


class TokenRecycling(Drafter):
    """Token Recycling.

    Luo et al. 2024, "Turning Trash into Treasure: Accelerating Inference of Large Language
    Models with Token Recycling". A matrix holds, for every token of the vocabulary, the k
    tokens that the target last found most likely after it. A fixed tree is filled from it
    breadth-first: the child of rank j of a node with token t holds entry j of row t. After
    verification the row of every scored node, accepted or not, is overwritten with the k best
    of its logits. Where a token stands at several nodes, the last one in breadth-first order
    wins, on every device.

    The rows begin as zeros, so that early drafts propose token 0 several times among siblings;
    they cost their place in the tree and nothing else. Published for greedy decoding and read in
    github.com/Luowaterbi/TokenRecycling (evaluation/inference_recycling.py); the children are
    chosen by no law, so a verifier that draws from the target keeps the law at every
    temperature. The released code does not learn from the prompt's own logits; `learn_prompt`
    adds it. The matrix is kept from request to request where the run carries state.

    The topology is a `StaticTree`; its shape is the template, of which rank j is entry j.

    Args:
        candidates: k, columns of the matrix; at least the largest number of siblings.
        learn_prompt: Whether rows are also written from the logits of the prompt's tokens.

    Raises:
        ConfigError: If k is less than one, or, with the first draft, than the tree is wide.
    """

    carries_state = True

    def __init__(self, candidates: int = 8, learn_prompt: bool = False) -> None:
        check_number("candidates", candidates, 1)
        self._candidates = candidates
        self._matrix: Tensor | None = None
        self._levels: tuple[Level, ...] = ()
        self._sizes: list[int] = []
        self._shape: TreeShape | None = None
        self.prompt_logits = learn_prompt

    def reset(self) -> None:
        """Fill the matrix with zeros."""
        if self._matrix is not None:
            self._matrix.zero_()

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Make the matrix where there is none for this vocabulary; learn from the prompt."""
        target = session.models.target
        shape = (target.vocab_size, self._candidates)
        matrix = self._matrix
        if matrix is None or matrix.shape != shape or matrix.device != target.device:
            self._matrix = torch.zeros(shape, dtype=torch.int64, device=target.device)
            self._shape = None
        if self.prompt_logits:
            prompt = session.request.prompt
            kept = [index for index, token in enumerate(prompt) if token < target.vocab_size]
            if kept:
                own = to_device([prompt[index] for index in kept], target.device)
                self._learn(own, prefill.logits[0, to_device(kept, target.device)])
        return self

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the template below the newest token, as deep as the request has room for."""
        matrix, topology = self._matrix, plan.topology
        assert matrix is not None and isinstance(topology, StaticTree)
        if self._shape is not topology.shape:
            self._take(topology.shape, matrix.device)
        depth = min(len(self._levels), plan.depth, plan.length.limit())
        if depth < 1:
            return None
        above = to_device(session.committed[-1:], matrix.device)
        drafted: list[Tensor] = []
        for level in self._levels[:depth]:
            above = matrix[above[level.parents], level.ranks]
            drafted.append(above)
        return DraftTree(torch.cat(drafted)[None], topology.shape.parents[: self._sizes[depth - 1]])

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Overwrite the rows of the root and of every node."""
        tree, emitted = outcome.tree, len(outcome.verdict.tokens)
        root = to_device(
            session.committed[-emitted - 1 : len(session.committed) - emitted], tree.tokens.device
        )
        self._learn(torch.cat([root, tree.tokens[0]]), outcome.scored.logits[0])

    def _take(self, shape: TreeShape, device: torch.device) -> None:
        """Prepare the index tensors of a shape."""
        width = max(shape.ranks) + 1
        if width > self._candidates:
            raise ConfigError(
                f"candidates={self._candidates} is not possible",
                f"the tree has nodes with {width} children",
                f"Choose {width} or more, or a narrower tree.",
            )
        first, self._levels, self._sizes = -1, (), []
        for depth in range(1, shape.depth + 1):
            nodes = [node for node, at in enumerate(shape.depths) if at == depth]
            parents = to_device([shape.parents[node] - first for node in nodes], device)
            ranks = to_device([shape.ranks[node] for node in nodes], device)
            self._levels += (Level(parents, ranks),)
            self._sizes.append(nodes[-1] + 1)
            first = nodes[0]
        self._shape = shape

    def _learn(self, tokens: Tensor, logits: Tensor) -> None:
        """Overwrite the rows of `tokens` [n] with the best of `logits` [n, V], the last wins."""
        assert self._matrix is not None
        count = min(self._candidates, logits.shape[-1])
        best = logits.topk(count, dim=-1).indices
        order = torch.arange(tokens.shape[0], device=tokens.device)
        last = ((tokens[:, None] == tokens) * order).amax(1)
        self._matrix[:, :count].index_copy_(0, tokens, best[last])
