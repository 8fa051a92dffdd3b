"""Matching that lets some other tokens pass: top-K acceptance and BiLD's rollback.

Both draw the target's own token at every node, as `sample_match` does with the same random
numbers, and keep a draft token that equals it. They also keep some that do not, which is what
makes them lossy. The token after the accepted path is the target's own draw there.

Shapes: B rows, N draft nodes, V vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from specbench.decoding.verifiers.base import Scored, Verdict, Verifier
from specbench.decoding.verifiers.longest_path import longest_path
from specbench.decoding.verifiers.sample_match import target_tokens
from specbench.errors import ConfigError
from specbench.transfer import to_device


class RelaxedMatch(Verifier, ABC):
    """Accept a child that equals the target's draw, or that `passes` accepts.

    Of several accepted children all are followed, and the longest path is kept; of equally long
    ones the one that the target finds most probable.
    """

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the longest accepted path and the target's token after it, for each row."""
        tree = scored.tree
        drawn = target_tokens(scored)
        parents = to_device([parent + 1 for parent in tree.parents], drawn.device, torch.int64)
        logits = scored.law.penalise(scored.logits, scored.seen)[:, parents]
        passed = (drawn[:, parents] == tree.tokens) | self.passes(logits, tree.tokens)
        scores = logits.double().log_softmax(-1).gather(-1, tree.tokens[..., None]).squeeze(-1)
        table = torch.cat([drawn.double(), passed.double(), scores, tree.tokens.double()], 1)
        return [
            longest_path(
                tree,
                passing=row[tree.size + 1 : 2 * tree.size + 1],
                scores=row[2 * tree.size + 1 : 3 * tree.size + 1],
                following=[int(token) for token in row[: tree.size + 1]],
                tokens=[int(token) for token in row[3 * tree.size + 1 :]],
            )
            for row in scored.read(table)
        ]

    @abstractmethod
    def passes(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Say which draft tokens are accepted though the target would say something else.

        Args:
            logits: [B, N, V] the target's logits at each node's parent, penalties applied.
            tokens: [B, N] the draft's tokens.

        Returns:
            [B, N] bool.
        """


class TopKAccept(RelaxedMatch):
    """Accept a draft token that is among the target's K most probable ones.

    The baseline that AutoJudge is compared with (Garipov et al. 2025, "AutoJudge: Judge Decoding
    Without Manual Annotation"; garipovroma/autojudge, eval/generation_utils.py), where both
    models are greedy and a rejected token is replaced by the target's argmax. The released loop
    emits no bonus token after full acceptance; this one does. Its K tokens are those that follow
    the draft token and not those of its own place: a slice of the logits is taken one place too
    late. Above temperature 0 the replacement
    is drawn from the target's law. Of equal logits the lowest index comes first.

    Args:
        top_k: K. 1 accepts the argmax alone, which at temperature 0 is greedy matching; 0 is
            matching the target's own draw at every temperature.
    """

    def __init__(self, top_k: int) -> None:
        if top_k < 0:
            raise ConfigError(
                f"top_k is {top_k}",
                "It counts the target's most probable tokens that are accepted",
                "Choose a whole number of at least 0; 1 accepts the argmax alone.",
            )
        self._top_k = top_k

    def passes(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Say which tokens rank among the K largest logits, [B, N]."""
        own = logits.gather(-1, tokens[..., None])
        earlier = torch.arange(logits.shape[-1], device=logits.device) < tokens[..., None]
        rank = (logits > own).sum(-1) + ((logits == own) & earlier).sum(-1)
        return rank < self._top_k


class BigLittle(RelaxedMatch):
    """BiLD's rollback: replace a draft token only where the target finds it very improbable.

    Kim et al. 2023, "Speculative Decoding with Big Little Decoder"; kssteven418/BigLittleDecoder,
    models/t5/modeling_t5.py. The target looks at the small model's run; the first token with
    -log p above the threshold is replaced by the target's own token, unless they are equal, and
    the rest is cut. Without such a token all is kept and the target adds its next one. p is the
    target's law at temperature 1, as released.

    Departures: the released code looks at the first violation alone and lets all later ones
    stand where the target's token happens to equal the draft's; here the scan goes on. It lets
    the large model take one further step after a rollback; here the small model goes on. It
    decodes greedily; above temperature 0 the small model samples and the target's token is drawn
    from its law.

    Args:
        rollback: The threshold in nats. 0 keeps only tokens that the target would have said
            (`sample_match`, greedy matching at temperature 0); infinity keeps every token.
    """

    def __init__(self, rollback: float) -> None:
        if not rollback >= 0:
            raise ConfigError(
                f"rollback is {rollback:g}",
                "It is a bound on -log p of the draft tokens that are kept",
                "Choose a number of at least 0; the paper uses 2 to 5.",
            )
        self._rollback = rollback

    def passes(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Say which tokens' -log p stays within the threshold, [B, N]."""
        if self._rollback == 0:
            return torch.zeros_like(tokens, dtype=torch.bool)
        surprise = -logits.float().log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        return ~(surprise > self._rollback)


class NearArgmax(RelaxedMatch):
    """Accept a draft token that is almost as probable as the argmax.

    Args:
        share: Least probability that is accepted, as a share of the argmax's, above 0.
    """

    def __init__(self, share: float) -> None:
        self._least = math.log(share)

    def passes(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Say which tokens' logits are near enough to the largest, [B, N]."""
        own = logits.gather(-1, tokens[..., None]).squeeze(-1)
        return own.double() >= logits.amax(-1).double() + self._least
