"""How the drafts behind the first rejection are drawn again.

A draft that is not committed in this round gets a new law, the target's p after the present
drafts. It must be drawn from that law, given everything before it; how the new draw hangs
together with the old one is free. The more often it stays what it was, the less the laws behind
it move, and the sooner the window settles.

So et al. 2025, "MC-SJD: Maximal Coupling Speculative Jacobi Decoding for Autoregressive Visual
Generation Acceleration", renamed "Speculative Coupled Decoding" (arXiv 2510.24211). Read in
github.com/junhyukso/SCD (lumina1/scheduler/*_SCDMC.py, *_GS.py). Two differences from it: the
release leaves a kept draft with its old law, which is not lossless; here every draft that was
looked at has the new law, kept or not. And its noise tables are those of window columns and hold
epsilon-shifted logarithms; here every absolute position has its own exponential noise.

Shapes: M drafts, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.jacobi.trial import Trial, residual
from specbench.decoding.request import Request
from specbench.rng import Purpose

_BLOCK = 16
_LEAST = 1e-30


class Coupling:
    """Draws a token for every column from the first rejection on."""

    def begin(self, request: Request) -> Coupling:
        """Return what follows one generation; itself where nothing is remembered."""
        return self

    def redraw(self, trial: Trial) -> Tensor:
        """Return a token for every column, [M + 1].

        Column `trial.rejected` gets the token that is committed there: a draw from the residual,
        or from the target's law where no draft was rejected. Columns behind it get their next
        drafts. What stands before it is not read.

        Args:
            trial: The round; the rows of `laws` at and before `rejected` may be overwritten.
        """
        raise NotImplementedError


class Fresh(Coupling):
    """Every new draft is drawn independently of the old one (Teng et al. 2024, SJD)."""

    def redraw(self, trial: Trial) -> Tensor:
        """Return a token for every column, [M + 1]."""
        weights = trial.laws.index_copy_(0, trial.rejected, trial.correction())
        return trial.request.choices.draw(weights, trial.draws)


class Maximal(Coupling):
    """The old draft is kept as often as it can be: with probability 1 - TV(p, q).

    The test of speculative sampling, at every column: keep with probability min(1, p/q), else
    draw from the residual.
    """

    def redraw(self, trial: Trial) -> Tensor:
        """Return a token for every column, [M + 1]."""
        weights = residual(trial.laws, trial.old)
        if trial.exact:
            kept = trial.accepted
        else:  # the acceptance rule's number is free behind the first rejection
            weights.index_copy_(0, trial.rejected, trial.correction())
            passed = trial.request.choices.happens(trial.ratio, trial.uniforms)
            kept = passed & (trial.columns[:-1] > trial.rejected)
        drawn = trial.request.choices.draw(weights, trial.draws)
        drawn[:-1] = torch.where(kept, trial.tokens, drawn[:-1])
        return drawn


class Gumbel(Coupling):
    """Every position has its own noise for good, and its draft is argmax(log p + noise).

    Two draws from laws p and q agree with probability at least (1 - TV) / (1 + TV), and no old
    token or law is needed to make them. Acceptance tests and residuals use other numbers.
    """

    def begin(self, request: Request) -> Coupling:
        """Return the coupling with the noise of one request."""
        return _GumbelOfRequest(request)

    def redraw(self, trial: Trial) -> Tensor:
        """Return a token for every column, [M + 1]."""
        return self.begin(trial.request).redraw(trial)


class _GumbelOfRequest(Coupling):
    def __init__(self, request: Request) -> None:
        self._noise = Noise(request)

    def redraw(self, trial: Trial) -> Tensor:
        laws = trial.laws
        factors = self._noise.rows(trial.position, laws)
        drawn = (laws * factors).argmax(-1)
        replaced = trial.request.choices.draw(trial.correction(), trial.draws[-1:])
        return drawn.index_copy_(0, trial.rejected, replaced)


class Noise:
    """One vector of noise for every absolute position, made once and kept while it is needed.

    Position by position a pure function of the request, in blocks of 16. Stored as 1/E with E
    exponential, so that argmax(p / E) is argmax(log p + g) with g = -log E a Gumbel variable.

    Args:
        request: Its streams seed the generator.
    """

    def __init__(self, request: Request) -> None:
        self._streams = request.streams
        self._table: Tensor | None = None
        self._generator = torch.Generator()
        self._start = self._end = 0

    def rows(self, position: int, like: Tensor) -> Tensor:
        """Return the factors of `len(like)` positions.

        Args:
            position: The first one; never less than in an earlier call.
            like: [R, V] a tensor of the wanted shape, type and device; R never grows.
        """
        end = position + like.shape[0]
        keep = position - position % _BLOCK
        table = self._table
        if table is None:
            rows = 2 * (like.shape[0] + _BLOCK) + _BLOCK
            table = self._table = like.new_empty(rows, like.shape[1])
            self._generator = torch.Generator(like.device)
        if keep >= self._end:
            self._start = self._end = keep
        while self._end < end:
            if self._end + _BLOCK - self._start > len(table):
                table[: self._end - keep] = table[keep - self._start : self._end - self._start]
                self._start = keep
            self._generator.manual_seed(self._streams.noise_seed(self._end, Purpose.DRAFT))
            at = self._end - self._start
            block = table[at : at + _BLOCK]
            block.uniform_(generator=self._generator).log_().neg_().clamp_(min=_LEAST).reciprocal_()
            self._end += _BLOCK
        return table[position - self._start : end - self._start]


COUPLINGS: dict[str, type[Coupling]] = {"fresh": Fresh, "maximal": Maximal, "gumbel": Gumbel}
"""Couplings by the word that names them in a method's file."""
