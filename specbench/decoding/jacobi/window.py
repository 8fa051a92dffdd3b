"""The window of speculative Jacobi decoding: drafts, their laws, and one round over them.

Shapes: M drafts, V vocabulary, L columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.jacobi.acceptance import Acceptance
from specbench.decoding.jacobi.couplings import Coupling
from specbench.decoding.jacobi.initial import Blanks, Initial
from specbench.decoding.jacobi.trial import Trial
from specbench.decoding.session import Session
from specbench.rng import Purpose
from specbench.transfer import to_device


class Advance(NamedTuple):
    """What a round commits.

    Attributes:
        accepted: How many drafts.
        emitted: They, and the token behind them.
    """

    accepted: int
    emitted: list[int]


class Window:
    """The drafts of one request and the laws that they were drawn from.

    The laws lie in one table that is made once and written in place. Its last used row is zero:
    no draft stands there, and the residual of zero is the target's law.

    Args:
        session: The request.
        columns: L, tokens that a round feeds at most.
        coupling: The coupling of this request.
        initial: Fills empty columns.
        acceptance: Judges drafts.
    """

    def __init__(
        self,
        session: Session,
        columns: int,
        coupling: Coupling,
        initial: Initial,
        acceptance: Acceptance,
    ) -> None:
        models, request = session.models, session.request
        self._session = session
        self._coupling = coupling
        self._initial = initial
        self._acceptance = acceptance
        self._drafts: list[int] = []
        self._laws: Tensor | None = None
        self._table: Tensor | None = None
        device = models.target.device
        self._columns = torch.arange(columns, device=device)
        if not request.law.greedy:
            wide = torch.float64 if models.target.dtype == torch.float64 else torch.float32
            size = (columns, models.target.vocab_size)
            self._table = torch.empty(size, dtype=wide, device=device)

    def fill(self, count: int) -> Tensor:
        """Return what the next round feeds, [1, M + 1]: the newest token and M drafts.

        The drafts that are left from the last round come first. The laws of all of them are
        written into the table.

        Args:
            count: M.
        """
        session = self._session
        committed, request = session.committed, session.request
        drafts = self._drafts[:count]
        held = len(drafts)
        blanks = Blanks(
            known=committed + drafts,
            prompt=len(request.prompt),
            numbers=request.streams.numbers(len(committed), count - held, Purpose.INITIAL),
            image=session.models.image,
            law=self._laws[-1] if self._laws is not None else None,
            like=self._table,
            choices=request.choices,
        )
        laws = None
        if held < count:
            tokens, laws = self._initial.guess(blanks)
            drafts += blanks.with_forced(tokens)
        self._drafts = drafts
        fed = to_device([[committed[-1], *drafts]], self._columns.device)
        if self._table is not None:
            self._write(self._table, held, fed[0, 1 + held :], laws, blanks)
        return fed

    def _write(
        self, table: Tensor, held: int, guesses: Tensor, laws: Tensor | None, blanks: Blanks
    ) -> None:
        """Write the laws of the held drafts, then of the guesses, then a row of zeros."""
        count = held + len(guesses)
        if held:
            assert self._laws is not None
            table[:held] = self._laws[:held]
        if laws is None:
            table[held : count + 1] = 0.0
            table[held:count].scatter_(1, guesses[:, None], 1.0)
            return
        table[held:count] = laws
        table[count] = 0.0
        points = [held + index for index, token in enumerate(blanks.forced()) if token >= 0]
        if points:
            rows = to_device(points, table.device)
            forced = guesses[rows - held][:, None]
            point = table.new_zeros(len(points), table.shape[1]).scatter_(1, forced, 1.0)
            table.index_copy_(0, rows, point)

    def step(self, logits: Tensor, fed: Tensor) -> Advance:
        """Judge the drafts, draw what follows them, and keep the rest for the next round.

        Args:
            logits: [1, M + 1, V] after the newest committed token and after every draft.
            fed: [1, M + 1] that token and the drafts.
        """
        session, law = self._session, self._session.request.law
        if fed.shape[1] == 1:
            self._drafts = []
            return Advance(0, session.read(session.next_token(logits[:, -1])))
        seen = session.target.history.along(fed[:, 1:], None)
        if law.greedy:
            answers = session.read(law.argmax(logits, seen)[0])
            matches = (a == b for a, b in zip(self._drafts, answers, strict=False))
            accepted = next((i for i, match in enumerate(matches) if not match), len(self._drafts))
            self._drafts = answers[accepted + 1 :]
            return Advance(accepted, answers[: accepted + 1])
        laws = law.probabilities(logits, seen)[0]
        accepted, tokens, answers = self._judge(laws, fed[0, 1:])
        emitted = [*self._drafts[:accepted], answers[accepted]]
        self._drafts = tokens[accepted + 1 :]
        self._laws = laws[accepted + 1 :] if self._drafts else laws[-1:]
        return Advance(accepted, emitted)

    def _judge(self, laws: Tensor, tokens: Tensor) -> tuple[int, list[int], list[int]]:
        """Return how many drafts are accepted, the redrawn tokens and the tokens to emit."""
        assert self._table is not None
        session = self._session
        streams, position = session.request.streams, len(session.committed)
        count = len(tokens)
        numbers = streams.numbers(position, count, Purpose.ACCEPT)
        numbers += streams.numbers(position, count + 1, Purpose.RESIDUAL)
        uniforms = to_device(numbers, laws.device, torch.float64)
        old = self._table[: count + 1]
        drafted = tokens[:, None]
        ratio = laws[:-1].gather(1, drafted) / old[:-1].gather(1, drafted)
        trial = Trial(
            models=session.models,
            request=session.request,
            position=position,
            tokens=tokens,
            laws=laws,
            old=old,
            ratio=ratio[:, 0],
            uniforms=uniforms[:count],
            draws=uniforms[count:],
            columns=self._columns[: count + 1],
            exact=self._acceptance.exact,
        )
        ruling = self._acceptance.judge(trial)
        trial.accepted, trial.weights = ruling.accepted, ruling.weights
        trial.rejected = ruling.accepted.cumprod(0).sum(0, keepdim=True)
        parts = [trial.rejected, self._coupling.redraw(trial)]
        if ruling.answers is not None:
            parts.append(ruling.answers)
        accepted, *drawn = session.read(torch.cat(parts))
        return accepted, drawn[: count + 1], drawn[-count - 1 :]
