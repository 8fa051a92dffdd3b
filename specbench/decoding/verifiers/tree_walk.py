"""The verification walk over a draft tree, for any node rule.

From the root downwards, each visited node offers its children to the rule, in draw order. The
walk steps into the accepted child, or ends with a token from the rule's leftover law; at a leaf
it ends with a token of the target's own law.

On a CPU only the visited nodes are warped and judged. On a GPU, where every look at a result
waits for the device, all nodes are judged in one go and the walk itself follows on the host after
one transfer. Both use the same rule and the same random numbers.

Every node has its own numbers, independent of those that drew the draft. Drawing per
root-to-leaf path instead, and keeping the longest, would favour tokens that many paths share.

Shapes: N draft nodes, M inner nodes (the root included), K most offers at one, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from specbench.decoding.tree import DraftTree, DrawKind
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier
from specbench.decoding.verifiers.point_tree import PointTree
from specbench.decoding.verifiers.relaxed_match import NearArgmax
from specbench.decoding.verifiers.rules import NodeRule, Offers
from specbench.decoding.verifiers.sample_match import match
from specbench.errors import ConfigError
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import to_device

_SAMPLED = frozenset({DrawKind.WITH_REPLACEMENT, DrawKind.WITHOUT_REPLACEMENT})


class TreeWalk(Verifier):
    """Verify a tree node by node.

    At temperature 0 every exact rule comes down to matching the argmax, and a lenient one keeps
    what is almost as probable (`lenient_sd`). Children that were chosen deterministically are
    point masses to every rule.

    Args:
        rule: What is accepted at a node.
        batched: Whether all nodes are judged at once; None decides by the device.
    """

    def __init__(self, rule: NodeRule, batched: bool | None = None) -> None:
        self._rule = rule
        self._points = PointTree(rule.lenience)
        self._near = NearArgmax(rule.lenience)
        self._batched = batched
        self.needs = rule.needs

    def prepare(self, models: ModelPair) -> None:
        """Show the loaded models to the rule."""
        self._rule.prepare(models)

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the accepted path and the next token for each row.

        Raises:
            ConfigError: If the rule is not exact for the way the tree was drawn.
        """
        tree = scored.tree
        if scored.law.greedy and tree.size and self._rule.lenience < 1:
            return self._near.verify(scored)
        if scored.law.greedy or tree.size == 0:
            return match(scored)
        rule = self._rule_for(tree)
        batched = self._batched
        if batched is None:
            batched = scored.logits.device.type != "cpu"
        if batched:
            return [_walk_judged(scored, row, rule) for row in range(len(scored.streams))]
        tokens = scored.read(tree.tokens)
        return [_walk_lazily(scored, row, rule, drafted) for row, drafted in enumerate(tokens)]

    def _rule_for(self, tree: DraftTree) -> NodeRule:
        kind = tree.draws.kind
        if kind in self._rule.kinds:
            return self._rule
        if kind is DrawKind.POINT:
            return self._points
        single = all(
            len({offer.record for offer in offers}) == len(offers) for offers in tree.offers
        )
        if kind in _SAMPLED and self._rule.kinds & _SAMPLED and single:
            return self._rule
        allowed = ", ".join(sorted({*self._rule.kinds, DrawKind.POINT}))
        raise ConfigError(
            f"{type(self._rule).__name__} cannot verify a tree of kind '{kind}'",
            f"It keeps the target's law only for draws of kind {allowed}",
            "Compose the drafter and topology with a verifier for such draws; "
            "SampleMatch and PointTree take any.",
        )


def _walk_lazily(scored: Scored, row: int, rule: NodeRule, tokens: list[int]) -> Verdict:
    """Walk one row, and look at no node that is not visited."""
    tree, streams, position = scored.tree, scored.streams[row], scored.positions[row]
    starts = (0, *accumulate(len(offers) for offers in tree.offers))
    path: list[int] = []
    entry = 0
    while True:
        seen = None if scored.seen is None else scored.seen[row, entry : entry + 1]
        target = scored.law.probabilities(scored.logits[row, entry : entry + 1], seen)
        offered = tree.offers[entry]
        if not offered:
            uniform = streams.uniform(position + len(path), Purpose.SAMPLE)
            token = int(scored.choices.draw(target, uniform))
            break
        _, offers = _collect(scored, row, [entry])
        numbers = streams.numbers(position, len(offered), Purpose.ACCEPT, starts[entry])
        uniforms = to_device([numbers], target.device, torch.float64)
        accepted, leftover = rule.judge(target, offers, uniforms)
        index = int(accepted)
        if index >= 0:
            node = offered[index].node
        else:
            uniform = streams.numbers(position, 1, Purpose.RESIDUAL, entry)[0]
            token = int(scored.choices.draw(leftover, uniform))
            follower = _child(tree, entry, token, tokens) if rule.follows else None
            if follower is None:
                break
            node = follower
        path.append(node)
        entry = node + 1
    return Verdict(tuple(path), token, (*(tokens[node] for node in path), token), tokens)


def _walk_judged(scored: Scored, row: int, rule: NodeRule) -> Verdict:
    """Judge all nodes of one row in one call, and walk after one transfer."""
    tree, streams, position = scored.tree, scored.streams[row], scored.positions[row]
    device = scored.logits.device
    entries = [entry for entry, offers in enumerate(tree.offers) if offers]
    counts = [len(offers) for offers in tree.offers]
    tests = streams.numbers(position, sum(counts), Purpose.ACCEPT)
    starts = (0, *accumulate(counts))
    width = max(counts)
    padded = [
        number
        for entry in entries
        for number in (tests[starts[entry] : starts[entry + 1]] + [0.0] * width)[:width]
    ]
    finals = streams.numbers(position, tree.size + 1, Purpose.RESIDUAL)
    for entry, depth in enumerate((0, *tree.depths)):
        if not counts[entry]:
            finals[entry] = streams.uniform(position + depth, Purpose.SAMPLE)

    seen = None if scored.seen is None else scored.seen[row]
    following = scored.law.probabilities(scored.logits[row], seen)
    inner, offers = _collect(scored, row, entries)
    numbers = to_device(padded + finals, device, torch.float64)
    uniforms = numbers[: len(padded)].view(-1, width)
    judged, leftover = rule.judge(following[inner], offers, uniforms)
    following = following.index_copy(0, inner, leftover)
    drawn = scored.choices.draw(following, numbers[len(padded) :])
    accepted = torch.full_like(drawn, -1).index_copy(0, inner, judged)
    rows = scored.read(torch.cat([drawn, accepted, tree.tokens[row]]))
    nodes = tree.size + 1
    nexts, choices, tokens = rows[:nodes], rows[nodes : 2 * nodes], rows[2 * nodes :]

    path: list[int] = []
    entry = 0
    while True:
        index, token = choices[entry], nexts[entry]
        if index >= 0:
            node = tree.offers[entry][index].node
        else:
            follower = _child(tree, entry, token, tokens) if rule.follows else None
            if follower is None:
                return Verdict(tuple(path), token, (*(tokens[n] for n in path), token), tokens)
            node = follower
        path.append(node)
        entry = node + 1


def _collect(scored: Scored, row: int, entries: Sequence[int]) -> tuple[Tensor, Offers]:
    """Return some entries of `tree.offers`, [M], and their offers, padded to the longest."""
    tree, device = scored.tree, scored.logits.device
    law = tree.draws.law
    laws = None if law is None else law[row]
    width = max(len(tree.offers[entry]) for entry in entries)
    table: list[list[int]] = []
    mixed = False
    for entry in entries:
        offers = tree.offers[entry]
        blanks = width - len(offers)
        nodes = [offer.node for offer in offers] + [-1] * blanks
        drawn_by = [max(offer.record, 0) for offer in offers]
        mixed = mixed or drawn_by[0] != drawn_by[-1]
        table.append([entry, *nodes, *drawn_by, *([0] * blanks)])
    columns = to_device(table, device)
    index, record = columns[:, 1 : width + 1], columns[:, width + 1 :]
    return columns[:, 0], Offers(
        tree.tokens[row][index], index >= 0, record, laws, mixed, scored.choices
    )


def _child(tree: DraftTree, entry: int, token: int, tokens: list[int]) -> int | None:
    """Return the child of an entry that carries a token, or None."""
    return next((node for node in tree.children[entry] if tokens[node] == token), None)
