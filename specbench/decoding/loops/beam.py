"""Beam search: the most probable of many continuations, found a token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.loops.branches import Branches
from specbench.decoding.loops.scoring import ranked, refuse_sampling, widened
from specbench.decoding.ranges import check_whole
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class _Candidate(NamedTuple):
    """A possible extension of a beam.

    Attributes:
        score: Sum of log-probabilities.
        beam: Which beam it extends.
        token: By which token.
    """

    score: float
    beam: int
    token: int


@dataclass
class _Beams:
    """The running beams and the finished hypotheses of one request.

    Attributes:
        running: Tokens of each running beam, those that are settled included.
        scores: Sum of log-probabilities of each.
        finished: Finished hypotheses.
        finals: Their sums of log-probabilities, divided by their lengths to a power.
    """

    running: list[list[int]] = field(default_factory=lambda: [[]])
    scores: list[float] = field(default_factory=lambda: [0.0])
    finished: list[list[int]] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)

    def settled(self, known: int) -> int:
        """Return how many tokens all beams and hypotheses share, of which `known` are known."""
        paths = self.running + self.finished
        shortest = min(len(path) for path in paths)
        first = paths[0]
        for index in range(known, shortest):
            if any(path[index] != first[index] for path in paths):
                return index
        return shortest

    def best(self) -> list[int]:
        """Return the finished hypothesis of largest score, the earliest on ties."""
        return self.finished[self.finals.index(max(self.finals))]


class BeamSearch(Decoder):
    """Beam search with length-normalised scores.

    In every step the 2 `width` best extensions of all beams are looked at. Those among the
    first `width` that end the answer become finished hypotheses, scored by their sum of
    log-probabilities over length ** `length_penalty`; the best `width` of the others run on.
    The search ends when `width` hypotheses are finished, or at the length limit, where the best
    `width` extensions finish. This is transformers' beam search with `early_stopping=True`
    (generation/utils.py, `_beam_search`), which the tests use as an oracle. Log-probabilities
    are those at temperature 1 (after the repetition penalty, where the run sets one).

    All beams are branches behind one cached prompt, so that no key or value moves when beams
    are reordered. A token is emitted when all beams agree on it; a round of the ledger holds
    the steps up to the next such token.

    Args:
        width: Number of beams; 1 is greedy decoding.
        length_penalty: Exponent of the length; above 0 favours longer answers.

    Raises:
        ConfigError: If width is less than one.
    """

    needs = frozenset({"tree_mask"})

    def __init__(self, width: int, length_penalty: float = 1.0) -> None:
        check_whole("width", width, 1)
        self._width = width
        self._length_penalty = length_penalty

    def check(self, law: Law) -> None:
        """Refuse a sampled law.

        Raises:
            ConfigError: If the temperature is above zero.
        """
        refuse_sampling(law, "Beam search")

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots of all beams but one."""
        return (self._width - 1) * request.max_new_tokens

    def rounds(self, session: Session) -> Rounds:
        """Emit, in a round, what all beams have come to agree on."""
        law, device = session.request.law, session.prompt.device
        seen = session.target.history.now()
        logits = session.feed(session.prompt, last=1)[0]
        beams, branches = _Beams(), Branches(1, device)
        while True:
            candidates = self._extensions(session, law.penalise(widened(logits), seen), beams)
            origins = self._advance(session.request, beams, candidates)
            known = session.emitted
            if not origins or len(beams.finished) >= self._width:
                session.committed += beams.best()[known:]
                yield session.close()
                return
            new = beams.running[0][known : beams.settled(known)]
            if new:
                session.committed += new
                yield session.close()
            branches.fork(origins)
            tokens = to_device([path[-1] for path in beams.running], device)
            if seen is not None:
                seen = seen[to_device(origins, device)].scatter(1, tokens[:, None], True)
            mask = branches.grow(range(len(origins)))
            session.clock.lap(Segment.SAMPLING)
            logits = session.feed(tokens[None], mask)[0]

    def _extensions(self, session: Session, logits: Tensor, beams: _Beams) -> list[_Candidate]:
        """Return the 2 `width` best extensions of all beams, best first.

        Args:
            session: The request.
            logits: [beams, V].
            beams: The running beams.
        """
        ids = ranked(logits, 2 * self._width)
        logs = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
        gains, tokens = session.read(torch.stack((logs.double(), ids.double())))
        candidates = [
            _Candidate(beams.scores[beam] + gain, beam, int(token))
            for beam in range(len(gains))
            for gain, token in zip(gains[beam], tokens[beam], strict=True)
            if gain > -torch.inf
        ]
        candidates.sort(key=lambda candidate: -candidate.score)
        return candidates[: 2 * self._width]

    def _advance(
        self, request: Request, beams: _Beams, candidates: Sequence[_Candidate]
    ) -> list[int]:
        """Finish hypotheses and choose the beams that run on; return what each extends."""
        running: list[_Candidate] = []
        for rank, candidate in enumerate(candidates):
            path = [*beams.running[candidate.beam], candidate.token]
            full = len(path) >= request.max_new_tokens
            if not full and request.stop.find(path, len(path) - 1) is None:
                running.append(candidate)
            elif rank < self._width:
                beams.finished.append(path)
                beams.finals.append(candidate.score / len(path) ** self._length_penalty)
        running = running[: self._width]
        beams.running = [[*beams.running[candidate.beam], candidate.token] for candidate in running]
        beams.scores = [candidate.score for candidate in running]
        return [candidate.beam for candidate in running]
