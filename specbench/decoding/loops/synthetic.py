"""The upper-bound tool: what would speculation gain if its drafts had this acceptance?

An instrument and no method. A request is decoded twice: plainly, before the clock starts, which
tells its continuation; and then by the loop that every method shares, with drafts of a set
acceptance (`drafters.synthetic`). Everything that a real method does in a round is done and timed:
the draft model's forwards, the target's forward over the draft, its own draw at every node, the
transfer of the verdict, the caches' rollback.

The emitted tokens are plain decoding's, because they were taken from there. In half precision the
forward over a draft and that over one token round differently, and a near-tie would end a round
that was set to go on; `ties` counts the tokens at which the verifying forward would have said
something else. In float32 there should be none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from specbench.clock import Clock, CpuClock
from specbench.decoding.base import Decoder
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.drafters.synthetic import (
    PlannedRound,
    SyntheticDrafter,
    planned_rounds,
)
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Cut, Request, StopRule
from specbench.decoding.session import Session
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier
from specbench.errors import ConfigError
from specbench.law import draw
from specbench.models.pair import ModelPair
from specbench.transfer import read


@dataclass
class Ties:
    """What `SyntheticAcceptance.ties` tells."""

    ties: int = 0
    emitted: int = 0


class PlannedVerifier(Verifier):
    """Do what matching with the target's own draws costs, and accept what was planned.

    Args:
        rounds: The planned rounds of a request.
        ties: Where ties are counted.
    """

    def __init__(self, rounds: Mapping[int, PlannedRound], ties: Ties) -> None:
        self._rounds = rounds
        self._ties = ties

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the planned verdict of the one row that there is."""
        (drawn,) = read(_target_tokens(scored))
        planned = self._rounds[scored.positions[0]]
        self._ties.emitted += len(planned.emitted)
        self._ties.ties += sum(
            own != token
            for own, token in zip(drawn[: planned.accepted + 1], planned.emitted, strict=True)
        )
        path = tuple(range(planned.accepted))
        return [Verdict(path, planned.emitted[-1], planned.emitted)]


class SyntheticAcceptance(Decoder):
    """Decode with drafts of a set acceptance; the upper bound of what a draft could gain.

    Args:
        acceptance: Chance that a draft token is accepted, given that all before it were.
        draft_length: Tokens that are drafted in every round.
        run_draft: Whether the pair's draft model runs in every round, for its cost.

    Raises:
        ConfigError: If the acceptance is no probability or the length below one.
    """

    def __init__(self, acceptance: float, draft_length: int, run_draft: bool = True) -> None:
        if not 0 <= acceptance <= 1:
            raise ConfigError(
                f"An acceptance of {acceptance:g} is not possible",
                "it is the probability that a draft token is accepted",
                "Choose a number from 0 to 1, such as method.acceptance=0.8.",
            )
        self._acceptance = acceptance
        self._length = Constant(draft_length)
        self._draft_length = draft_length
        self._model = ModelDrafter() if run_draft else None
        self._plain = Autoregressive()
        self.needs = ModelDrafter.needs if run_draft else frozenset()
        self._ties = Ties()

    @property
    def ties(self) -> tuple[int, int]:
        """Emitted tokens at which the target's own draw was another, and how many were looked at.

        Over all requests since `reset`.
        """
        return self._ties.ties, self._ties.emitted

    def reset(self) -> None:
        """Forget the counted ties."""
        self._ties = Ties()

    def open(self, models: ModelPair, request: Request, clock: Clock) -> Session:
        """Decode plainly outside of the clock, then begin with planned drafts inside of it."""
        stop = _Behind(request.stop, self._draft_length)
        known = self._plain.generate(models, replace(request, stop=stop), CpuClock()).tokens
        rounds = planned_rounds(self._acceptance, self._draft_length, request, known, models)
        drafter = SyntheticDrafter(known[0], rounds, self._model)
        verifier = PlannedVerifier(rounds, self._ties)
        return DraftVerify(drafter, Chain(), self._length, verifier).open(models, request, clock)


@dataclass
class _Behind:
    """Stop some tokens behind the place at which another rule stops.

    Attributes:
        rule: The other rule.
        extra: How many tokens.
        cut: What the other rule found.
    """

    rule: StopRule
    extra: int
    cut: Cut | None = None

    @property
    def ids(self) -> frozenset[int]:
        """No token ends the sequence by itself."""
        return frozenset()

    def find(self, tokens: Sequence[int], start: int, first: int = 0) -> Cut | None:
        """Return the cut, once there are enough tokens behind the other rule's."""
        if self.cut is None:
            self.cut = self.rule.find(tokens, start, first)
        if self.cut is None or len(tokens) < self.cut.length + self.extra:
            return None
        return Cut(self.cut.length + self.extra, self.cut.reason)


def _target_tokens(scored: Scored) -> Tensor:
    """Draw (or take the argmax of) the target's token at the root and every node, [1, N + 1]."""
    if scored.law.greedy:
        return scored.law.argmax(scored.logits, scored.seen)
    probabilities = scored.law.probabilities(scored.logits, scored.seen)
    return draw(probabilities, scored.target_numbers())
