"""LANTERN: accept a drafted code for the probability of its neighbours too.

Jang et al. 2024, "LANTERN: Accelerating Visual Autoregressive Models with Relaxed Speculative
Decoding" (arXiv 2410.03355), and Park et al. 2025, "LANTERN++" (arXiv 2502.06352); read in
github.com/jadohu/LANTERN, models/ea_model_llamagen.py (`evaluate_posterior`, its version for
sampled trees, and the greedy branch) and entrypoints/generate_codebook.py.

Many codes of a picture are interchangeable, so a target spreads its probability over them and
finds each drafted one improbable. Before a code x is tested, the running law r(x) is raised by
the mass of the codes nearest to x: r~(x) = r(x) + the sum over the nearest codes, one after
another, as long as the added mass is at most delta (LANTERN) or (lambda - 1) r(x) (LANTERN++). x
is accepted with probability min(1, r~(x) / q(x)), q being 1 for a chosen child. After the
rejection of a raised code, a chosen child takes its k neighbours with it out of r; where children
were sampled, the neighbours leave the q that is subtracted, and keep all of r.

delta bounds how far each code's own r~ lies from r, not how far the output lies from the target:
with many draft codes around few probable ones the output can miss the target's law altogether.
Nor does a larger delta accept more at every node: a rejected code takes near siblings with it.

Near is by Euclidean distance between the rows of the codebook as they are stored, as in the
release; LlamaGen's and Janus's decoders read them normalised, which orders them differently.

Departures from the released code: a code counts as raised only where mass was really added, so
that a bound of zero is the exact rule (there, neighbours of probability zero make it relaxed); k
neighbours are removed after a rejection and not k + 1; a law that loses all its mass with the
neighbours keeps them, and does not become uniform over the vocabulary.

Shapes: M nodes, N draft nodes, k neighbours, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.codebook import Neighbours, check_space, image_of
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.base import Scored, Verdict
from specbench.decoding.verifiers.longest_path import longest_path
from specbench.decoding.verifiers.point_tree import fresh_tokens
from specbench.decoding.verifiers.rrs import without
from specbench.decoding.verifiers.rules import Judgement, NodeRule, Offers, normalised, ratio
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.models.pair import ModelPair
from specbench.transfer import to_device

_ROUNDING = 1 + 1e-6
"""A sum of probabilities that should equal its bound may end a rounding error above it."""


class Raised(NamedTuple):
    """What a token's neighbours add to its probability.

    Attributes:
        added: [M, 1] float64 mass, 0 where nothing was added.
        near: [M, k] the neighbours.
    """

    added: Tensor
    near: Tensor


class RelaxedRule(NodeRule):
    """The node rule of LANTERN, for chosen children and for ones drawn without replacement.

    Args:
        neighbours: k, codes that count as near; 0 is the exact rule of the draws at hand.
        delta: Most mass that neighbours may add, in [0, 1]; 0 is the exact rule.
        factor: Instead of delta: lambda, at least 1; neighbours may add up to lambda - 1 times
            the code's own probability. 1 is the exact rule.
        distance: Where codes are near: one of `image.SPACES`; "rows" as released.

    Raises:
        ConfigError: If a value is out of range, or not exactly one of the bounds is given.
    """

    needs = frozenset({"image"})
    kinds = frozenset({DrawKind.POINT, DrawKind.NONE, DrawKind.WITHOUT_REPLACEMENT})

    def __init__(
        self,
        neighbours: int,
        delta: float | None = None,
        factor: float | None = None,
        distance: str = "rows",
    ) -> None:
        check_whole("neighbours", neighbours, 0)
        check_space(distance)
        if (delta is None) == (factor is None):
            raise ConfigError(
                f"delta={delta} and factor={factor} do not go together",
                "one of them bounds the mass that neighbours add",
                "Give either delta (LANTERN) or factor (LANTERN++), and null for the other.",
            )
        if delta is not None:
            check_number("delta", delta, 0, 1)
        if factor is not None:
            check_number("factor", factor, 1)
        self._count = int(neighbours)
        self._delta = delta
        self._factor = factor
        self._space = distance
        self._neighbours: Neighbours | None = None

    def prepare(self, models: ModelPair) -> None:
        """Look up which codes are near.

        Raises:
            ConfigError: If the model draws no pictures.
        """
        image = image_of(models, "LANTERN")
        count, space = self._count, self._space
        self._neighbours = Neighbours.of_image(image, count, space) if count else None

    def judge(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Judge the k-th offer of all nodes together, for each k; see `NodeRule.judge`."""
        if offers.laws is None:
            return self._judge_chosen(target, offers, uniforms)
        return self._judge_drawn(target, offers, uniforms)

    def _judge_chosen(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Judge point masses; r is not renormalised, and `left` is its mass."""
        fresh = fresh_tokens(offers.tokens, offers.valid)
        running, left = target, torch.ones_like(uniforms[:, :1])
        accepted, undecided = _nothing_yet(offers)
        for index in range(offers.tokens.shape[1]):
            token = offers.tokens[:, index : index + 1]
            p = running.gather(1, token).double()
            raised = self.raised(running, p, token, left)
            mass = p + raised.added
            tried = undecided & fresh[:, index]
            chance = torch.where(mass > 0, mass / left.maximum(mass), 0.0).squeeze(1)
            hit = offers.choices.happens(torch.where(tried, chance, 0.0), uniforms[:, index])
            accepted = torch.where(hit, index, accepted)
            undecided = undecided & ~hit
            if target.device.type == "cpu" and not undecided.any():
                break
            rejected = (tried & ~hit)[:, None]
            reduced = running.scatter(1, token, 0.0)
            gone = p
            if self._neighbours is not None:
                alone = reduced.scatter(1, raised.near, 0.0)
                along = (raised.added > 0) & (alone.sum(-1, keepdim=True) > 0)
                taken = reduced.gather(1, raised.near).sum(1, keepdim=True, dtype=torch.float64)
                gone = p + torch.where(along, taken, 0.0)
                reduced = torch.where(along, alone, reduced)
            running = torch.where(rejected, reduced, running)
            left = torch.where(rejected, left - gone, left)
        empty = running.sum(-1, keepdim=True) <= 0
        return Judgement(accepted, torch.where(empty, target, running))

    def _judge_drawn(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Judge draws without replacement: recursive rejection with raised probabilities."""
        running, draft = target, offers.law(0, target.dtype)
        accepted, undecided = _nothing_yet(offers)
        whole = torch.ones_like(uniforms[:, :1])
        count = offers.tokens.shape[1]
        for index in range(count):
            if index and offers.mixed:
                changed = offers.records[:, index] != offers.records[:, index - 1]
                draft = torch.where(changed[:, None], offers.law(index, target.dtype), draft)
            token = offers.tokens[:, index : index + 1]
            q, p = draft.gather(1, token), running.gather(1, token)
            raised = self.raised(running, p.double(), token, whole)
            chance = ratio((p + raised.added).to(q.dtype), q).squeeze(1)
            tried = undecided & offers.valid[:, index] & (q.squeeze(1) > 0)
            hit = offers.choices.happens(torch.where(tried, chance, 0.0), uniforms[:, index])
            accepted = torch.where(hit, index, accepted)
            undecided = undecided & ~hit
            if target.device.type == "cpu" and not undecided.any():
                break
            subtracted = draft
            if self._neighbours is not None:
                spared = draft.scatter(1, raised.near, 0.0)
                subtracted = torch.where(raised.added > 0, spared, draft)
            reduced = (running - subtracted).clamp_(min=0)
            rejected = (tried & ~hit)[:, None]
            running = torch.where(rejected, normalised(reduced, running), running)
            if index + 1 < count:
                draft = without(draft, token)
        return Judgement(accepted, running)

    def raised(self, running: Tensor, p: Tensor, tokens: Tensor, left: Tensor) -> Raised:
        """Return what each token's neighbours add.

        Args:
            running: [M, V] running law, of mass `left`.
            p: [M, 1] float64, its value at the tokens.
            tokens: [M, 1].
            left: [M, 1] float64.
        """
        if self._neighbours is None:
            assert self._count == 0, "the rule was not shown the models"
            return Raised(torch.zeros_like(p), tokens[:, :0])
        near, inside = self._neighbours.of(tokens.squeeze(1))
        sums = running.gather(1, near).cumsum(1, dtype=torch.float64)
        if self._factor is not None:
            bound = (self._factor - 1) * p
        else:
            assert self._delta is not None
            bound = self._delta * left
        allowed = (sums <= bound * _ROUNDING) & inside
        return Raised(torch.where(allowed, sums, 0.0).amax(1, keepdim=True), near)


class Lantern(TreeWalk):
    """Relaxed verification of trees and chains of any drafter, over codebook neighbours.

    At temperature 0 the raised probability (at temperature 1, as released) takes the place of the
    code's own, and the code is accepted where it then is the largest. Several children of one
    node may pass: the longest path is kept, the first of equals. The token after it is the
    target's argmax.

    Args:
        neighbours: k; see `RelaxedRule`.
        delta: Most mass that neighbours may add.
        factor: Instead of delta: lambda.
        distance: Where codes are near; see `RelaxedRule`.
        batched: Whether all nodes are judged at once; None decides by the device.
    """

    def __init__(
        self,
        neighbours: int,
        delta: float | None = None,
        factor: float | None = None,
        distance: str = "rows",
        batched: bool | None = None,
    ) -> None:
        self._relaxed = RelaxedRule(neighbours, delta, factor, distance)
        super().__init__(self._relaxed, batched)

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the accepted path and the next token for each row."""
        if scored.law.greedy and scored.tree.size:
            return self._match(scored)
        return super().verify(scored)

    def _match(self, scored: Scored) -> list[Verdict]:
        """Match raised probabilities with the largest one at every node, for each row."""
        tree, law = scored.tree, scored.law
        best = law.argmax(scored.logits, scored.seen)
        penalised = law.penalise(scored.logits, scored.seen)
        parents = to_device([parent + 1 for parent in tree.parents], best.device)
        verdicts = []
        for row, logits in enumerate(penalised):
            target = logits.softmax(-1)[parents]
            tokens = tree.tokens[row]
            p = target.gather(1, tokens[:, None]).double()
            raised = self._relaxed.raised(target, p, tokens[:, None], torch.ones_like(p))
            most = target.gather(1, best[row, parents, None]).double()
            lifted = (raised.added > 0) & (p + raised.added > most)
            passing = (tokens == best[row, parents]) | lifted.squeeze(1)
            table = scored.read(torch.cat([passing.long(), best[row], tokens]))
            size = tree.size
            verdicts.append(
                longest_path(
                    tree,
                    passing=table[:size],
                    scores=[0.0] * size,
                    following=table[size : 2 * size + 1],
                    tokens=table[2 * size + 1 :],
                )
            )
        return verdicts


def _nothing_yet(offers: Offers) -> tuple[Tensor, Tensor]:
    """Return [M] accepted offers, none, and [M] undecided nodes, all."""
    accepted = torch.full_like(offers.tokens[:, 0], -1)
    return accepted, torch.ones_like(offers.valid[:, 0])
