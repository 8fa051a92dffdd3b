"""Speculative Jacobi decoding: a window of drafts that the target redraws in every forward.

The drafts of a round are what the target drew in the round before, after drafts that may have
been wrong. One forward gives the target's laws after the present ones; from the left, each draft
is tested as in speculative sampling against the law that it was drawn from, and at the first
rejection the residual is drawn and committed. The columns behind it get new drafts, drawn from
their new laws, and the window moves on. A draft's law given everything before it is known, and it
is tested once where it is committed: the output has the target's law.

Three parts make a method of the family: the coupling says how a new draft hangs together with
the old one, the initial guess what an empty column holds, the acceptance rule which drafts are
committed. SJD is `fresh` and `ratio`; MC-SJD is `maximal` or `gumbel` and `ratio`; GSD is `fresh`
and the grouped test.

Teng et al. 2024, arXiv 2410.01699 (SJD), Algorithm 1; So et al. 2025, arXiv 2510.24211 (MC-SJD).
Read in github.com/tyshiwo1/Accelerating-T2I-AR-with-SJD and github.com/junhyukso/SCD, folders
`scheduler`. The release of SJD passes the residual through top-k once more and leaves structural
tokens to chance; here the residual is drawn as it is, and what a grid forces is guessed.

At temperature 0 every law is a point: the test compares tokens, and the window is that of Jacobi
decoding.
"""

from __future__ import annotations

from typing import TypeVar

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.jacobi.acceptance import ACCEPTANCES, Acceptance
from specbench.decoding.jacobi.couplings import COUPLINGS, Coupling
from specbench.decoding.jacobi.initial import INITIALS, Initial
from specbench.decoding.jacobi.window import Window
from specbench.decoding.ranges import check_whole
from specbench.decoding.session import Rounds, Session
from specbench.errors import ConfigError, did_you_mean
from specbench.models.pair import ModelPair

Part = TypeVar("Part")


class SpeculativeJacobi(Decoder):
    """Speculative sampling of a window against its own previous iteration.

    The ledger counts the tokens of one conditioning row: under guidance a model computes every
    fed token twice or three times.

    Args:
        window: L, tokens that one round feeds: the newest committed one and L - 1 drafts. 1 is
            plain decoding.
        coupling: How new drafts are drawn: "fresh", "maximal", "gumbel", or a part.
        initial: What empty columns hold: "random", "uniform", "copy_left", "copy_up",
            "sample_left", or a part.
        acceptance: Which drafts are committed: "ratio", "oracle", or a part.
        tail: Tokens at the end of the answer that no window reaches, so that they are drawn one
            by one; releases have such tails, and their published forwards contain them.

    Raises:
        ConfigError: If the window is less than one, the tail below zero, or a word names no part.
    """

    def __init__(
        self,
        window: int = 16,
        coupling: Coupling | str = "fresh",
        initial: Initial | str = "random",
        acceptance: Acceptance | str = "ratio",
        tail: int = 0,
    ) -> None:
        check_whole("window", window, 1)
        check_whole("tail", tail, 0)
        self._columns, self._tail = int(window), int(tail)
        self._coupling = _part("coupling", coupling, COUPLINGS)
        self._initial = _part("initial", initial, INITIALS)
        self._acceptance = _part("acceptance", acceptance, ACCEPTANCES)
        self.needs = self._acceptance.needs

    def prepare(self, models: ModelPair) -> None:
        """Let the acceptance rule look at the models."""
        self._acceptance.prepare(models)

    def rounds(self, session: Session) -> Rounds:
        """Read the prompt; then judge a window of drafts, and draw what follows them."""
        clock, cache = session.clock, session.target.cache
        coupling = self._coupling.begin(session.request)
        window = Window(session, self._columns, coupling, self._initial, self._acceptance)
        logits = session.feed(session.prompt, last=1)[:, -1]
        session.commit(session.read(session.next_token(logits)))
        yield session.close()

        while True:
            count = min(self._columns - 1, max(session.budget - self._tail, 0))
            base = cache.lengths[0]
            clock.launch()
            fed = window.fill(count)
            clock.lap(Segment.DRAFT)
            accepted, emitted = window.step(session.feed(fed), fed)
            cache.truncate([base + accepted + 1])
            session.commit(emitted)
            session.check_cache()
            yield session.close(proposed=count, accepted=accepted, nodes=count)


def _part(kind: str, part: Part | str, known: dict[str, type[Part]]) -> Part:
    """Return a part, or the one that a word names."""
    if not isinstance(part, str):
        return part
    if part not in known:
        raise ConfigError(
            f"{kind}={part} is not possible",
            f"it is one of {', '.join(known)}, or a node with a _target_",
            did_you_mean(part, tuple(known)),
        )
    return known[part]()
