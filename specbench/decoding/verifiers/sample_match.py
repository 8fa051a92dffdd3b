"""Keep what the target would have said anyway.

At every node one token is drawn from the target's law (its argmax at temperature 0). The walk
starts at the root, descends into the child that equals the drawn token, and emits the drawn
token where no child does. Exact for any drafter, including one that has no law, because the
emitted token at each visited node is the target's own draw.

The draw at a position uses the same random number as plain decoding does there. With exact
arithmetic the output is therefore token-identical to plain decoding at every temperature.

Trap: one draw per node and position, never one per root-to-leaf path. Drawing per path and
keeping the longest match is biased towards tokens that many paths share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier


class SampleMatch(Verifier):
    """Accept a child exactly when it equals the target's own draw.

    Also known as naive sampling or speculative execution (Miao et al. 2024, SpecInfer;
    Svirschevski et al. 2024, SpecExec). At temperature 0 this is greedy matching.
    """

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the longest path of target draws in each row's tree."""
        return match(scored)


def match(scored: Scored) -> list[Verdict]:
    """Draw (or take the argmax of) the target's token at every node, and walk."""
    tree = scored.tree
    both = scored.read(torch.cat([target_tokens(scored), tree.tokens], dim=1))
    nodes = tree.size + 1
    return [walk(tree, row[:nodes], row[nodes:]) for row in both]


def target_tokens(scored: Scored) -> Tensor:
    """Draw (or take the argmax of) the target's token at the root and every node, [B, N + 1]."""
    if scored.law.greedy:
        return scored.law.argmax(scored.logits, scored.seen)
    probabilities = scored.law.probabilities(scored.logits, scored.seen)
    return scored.choices.draw(probabilities, scored.target_numbers())


def walk(tree: DraftTree, drawn: list[int], tokens: list[int]) -> Verdict:
    """Follow the drawn tokens down a tree.

    Args:
        tree: The structure.
        drawn: The target's token at the root and at every node.
        tokens: The draft's token at every node.
    """
    path: list[int] = []
    node = -1
    while True:
        wanted = drawn[node + 1]
        match = next((c for c in tree.children[node + 1] if tokens[c] == wanted), None)
        if match is None:
            return Verdict(tuple(path), wanted, (*(tokens[n] for n in path), wanted), tokens)
        path.append(match)
        node = match
