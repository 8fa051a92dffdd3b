"""A decoder that is wrong on purpose, so that an audit which finds nothing means something.

A test that has never failed may be blind. The control decodes plainly, but draws a stated share
of its tokens from a wrong law. It is sampled and weighed as the audited decoder is, with at most
as many samples; where it passes, the audited decoder's pass says nothing, and the audit is
inconclusive.
"""

from __future__ import annotations

import math

from specbench.audit.sampled import FALSE_ALARM, Evidence
from specbench.audit.verdict import Check, CheckOutcome, Kind
from specbench.decoding.base import Decoder
from specbench.decoding.session import Rounds, Session
from specbench.rng import Purpose

SHARE = 0.3
"""Share of the control's tokens that come from the wrong law."""

DRAFT = "the draft's law"
STALE = "the law one position earlier"


class Mixed(Decoder):
    """Plain decoding whose law is mixed with a wrong one behind the first token.

    The wrong law is that of the draft model, as of drafts that are accepted without a test, or
    the target's own law one position earlier, as of a table of laws that was not shifted. It is
    cut to what the target allows, so that only its probabilities are wrong.

    Args:
        share: Probability that a token is drawn from the wrong law.
        drafts: Whether the wrong law is the draft model's.
    """

    def __init__(self, share: float = SHARE, drafts: bool = False) -> None:
        self._share = share
        self._drafts = drafts
        self.needs = frozenset({"draft"}) if drafts else frozenset()

    @property
    def wrong_law(self) -> str:
        """The wrong law in words."""
        return DRAFT if self._drafts else STALE

    def rounds(self, session: Session) -> Rounds:
        """Emit one token a round, wrongly."""
        target, draft = session.target, session.draft() if self._drafts else None
        streams, fed, wrong = session.request.streams, session.prompt, None
        while True:
            seen, position = target.history.now(), len(session.committed)
            law = own = target.law.probabilities(session.feed(fed, last=1)[:, -1], seen)
            if draft is not None:
                wrong = target.law.probabilities(draft.feed(fed, last=1)[:, -1], seen)
            if wrong is not None and session.emitted:
                wrong = wrong * (law > 0)
                share = self._share * (float(wrong.sum()) > 0)
                if streams.uniform(position, Purpose.ACCEPT) < share:
                    law = wrong
            token = session.request.choices.draw(law, streams.uniform(position, Purpose.SAMPLE))
            session.commit(token.tolist())
            yield session.close()
            wrong = own
            fed = token[:, None]


def control_check(evidence: Evidence, control: Mixed, name: str, samples: int) -> Check:
    """Return the check that says whether the control was found, and how often it would be.

    Args:
        evidence: Of the control.
        control: The control.
        name: The target's law in words.
        samples: Generations of the audited decoder, the size that the power is stated for.
    """
    caught = evidence.found()
    return Check(
        name=name,
        kind=Kind.NEGATIVE_CONTROL,
        outcome=CheckOutcome.PASS if caught else CheckOutcome.INCONCLUSIVE,
        statistic=evidence.value,
        bound=-math.log(FALSE_ALARM),
        p_value=min(1.0, math.exp(-evidence.value)),
        samples=len(evidence.terms),
        false_alarm=FALSE_ALARM,
        power=evidence.power(samples),
        detail=(
            f"{SHARE:.0%} of tokens from {control.wrong_law}: "
            + ("found; " if caught else "not found, take more --samples; ")
            + evidence.strongest()
        ),
    )
