"""Recursive speculative decoding with stochastic beam search.

Jeon et al. 2024, "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without
Replacement", section 3.2.2 (RSD-S), after Kool et al. 2019, "Stochastic Beams and Where to Find
Them". Whole sequences are drawn without replacement, and unlikely ones are dropped early: every
level keeps the W children of the beam with the largest perturbed scores. No code of the former was
found on GitHub.

Dropping keeps the law. Given the earlier siblings, the value of the next largest score is
independent of the token that attains it, so whether a sibling was kept says nothing about which
token it is. Siblings must be offered in decreasing order of their scores.

Shapes: n nodes of the beam, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.topologies.static_tree import MOST_NODES
from specbench.decoding.tree import DraftTree, DrawKind
from specbench.errors import ConfigError


class RsdS(Topology):
    """A beam of sequences drawn without replacement; plain beam search where greedy.

    Args:
        width: W, the most nodes on a level.
        depth: Number of levels.

    Raises:
        ConfigError: If a number is not positive or the tree would be too large.
    """

    def __init__(self, width: int, depth: int) -> None:
        if width < 1 or depth < 1 or width * depth > MOST_NODES:
            raise ConfigError(
                f"A beam of width {width} and depth {depth} is not possible",
                f"both are at least 1, and their product is at most {MOST_NODES}",
                "Choose other numbers.",
            )
        self.nodes = width * depth
        self.needs = Topology.needs if width > 1 else frozenset()
        self._width = width
        self._depth = depth

    def grow(self, growth: Growth) -> DraftTree | None:
        """Expand the beam level by level; everything stays on the device."""
        device = growth.device
        laws = growth.expand_root()
        ids = torch.full((1,), -1, dtype=torch.int64, device=device)
        likelihood = torch.zeros(1, dtype=torch.float64, device=device)
        score = torch.zeros_like(likelihood)
        for depth in range(min(growth.depth, self._depth)):
            if depth:
                laws = growth.expand(ids)
            beam, vocabulary = laws.shape
            likelihoods = likelihood[:, None] + laws.double().log()
            scores = likelihoods
            if not growth.greedy:
                noise = growth.noise((beam, vocabulary))
                scores = perturbed_scores(likelihoods, score, noise)
            kept = scores.flatten().topk(min(self._width, beam * vocabulary))
            parents, tokens = kept.indices // vocabulary, kept.indices % vocabulary
            likelihood, score = likelihoods.flatten()[kept.indices], kept.values
            ids = growth.add(ids[parents], tokens)
        return growth.finish(DrawKind.WITHOUT_REPLACEMENT)


def perturbed_scores(likelihoods: Tensor, score: Tensor, noise: Tensor) -> Tensor:
    """Return the perturbed scores of all children of the beam, [n, V].

    With phi = likelihood + Gumbel noise and Z = max phi of a parent's children, the score of a
    child is -log(exp(-G) - exp(-Z) + exp(-phi)), so that the largest equals the parent's G. It
    is computed in log space, where it does not underflow (Kool et al. 2019, appendix B.3).

    Args:
        likelihoods: [n, V] log-probabilities of the children's sequences.
        score: [n] perturbed scores G of the parents.
        noise: [n, V] uniform numbers in [0, 1).
    """
    phi = likelihoods - (-noise.log()).log()
    largest = phi.max(-1, keepdim=True).values
    gap = score[:, None] - phi + torch.log1p(-(phi - largest).exp())
    return score[:, None] - gap.clamp(min=0) - torch.log1p((-gap.abs()).exp())
