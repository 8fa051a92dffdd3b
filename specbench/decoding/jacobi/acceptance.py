"""Which drafts of a window are committed.

`Ratio` is the test of speculative sampling and exact. `Grouped` and `Cool` accept more than it
does, and what they accept too often no residual can take back: they do not keep the target's law.
`Oracle` accepts what plain decoding would draw: with it every method of the family emits the
tokens of plain decoding, a sharp test of everything around the random choices.

Shapes: M drafts, V vocabulary, K codes, D width of a code, N members of a group.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.codebook import check_space, image_of
from specbench.decoding.jacobi.trial import Trial
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.verifiers.cool_sd import annealed_weights
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import to_device


class Ruling(NamedTuple):
    """What a rule says of a window.

    Attributes:
        accepted: [M] bool; a draft is committed if it and all before it are accepted.
        answers: [M + 1] the token to emit at the first rejected column, or behind the last
            draft; None to draw it from the residual.
        weights: [M] what the ratio p/q was multiplied by, or None; the residual follows it.
    """

    accepted: Tensor
    answers: Tensor | None = None
    weights: Tensor | None = None


class Acceptance:
    """Accepts or rejects every draft of a window.

    Attributes:
        exact: Whether a draft is accepted with probability min(1, p/q).
        needs: What the model pair must have.
    """

    exact: bool = False
    needs: frozenset[str] = frozenset()

    def prepare(self, models: ModelPair) -> None:
        """Look at the loaded models once, and refuse those that lack what is needed."""

    def judge(self, trial: Trial) -> Ruling:
        """Judge all drafts, whatever becomes of those before them."""
        raise NotImplementedError


class Ratio(Acceptance):
    """Accept with probability min(1, p/q), as speculative sampling does."""

    exact = True

    def judge(self, trial: Trial) -> Ruling:
        """Judge all drafts."""
        return Ruling(trial.request.choices.happens(trial.ratio, trial.uniforms))


class Oracle(Acceptance):
    """Accept a draft if it is what plain decoding draws there, else emit what it draws."""

    def judge(self, trial: Trial) -> Ruling:
        """Judge all drafts."""
        count = trial.laws.shape[0]
        numbers = trial.request.streams.uniforms(trial.position, count, Purpose.SAMPLE)
        uniforms = to_device(numbers, trial.laws.device, torch.float64)
        answers = trial.request.choices.draw(trial.laws, uniforms)
        return Ruling(trial.tokens == answers[:-1], answers)


class Cool(Acceptance):
    """Accept with probability min(1, w_i p/q), w_i = delta exp(-nu i - mu), i counted from 1.

    Lossy where w_i is above 1: Cool-SD (see `verifiers.cool_sd`, which names the source), whose
    drafts come from a draft model; the same relaxation of a Jacobi window is ours. It decays
    along the window, because an early error moves everything behind it. After a rejection the
    token is drawn from (p - min(q, w_i p))+. delta = 1 with nu = 0 is the exact test.

    Args:
        delta: Overall relaxation, above 0.
        nu: How fast it decays from one column to the next, at least 0.
        mu: Shift of the exponent; None lets the weights of a window average delta.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(self, delta: float = 1.0, nu: float = 0.0, mu: float | None = None) -> None:
        check_number("delta", delta, math.ulp(0.0))
        check_number("nu", nu, 0)
        if mu is not None:
            check_number("mu", mu, -math.inf)
        self._delta, self._nu, self._mu = delta, nu, mu

    def judge(self, trial: Trial) -> Ruling:
        """Judge all drafts."""
        host = annealed_weights(len(trial.tokens), self._delta, self._nu, self._mu)
        weights = to_device(host, trial.ratio.device, trial.ratio.dtype)
        return Ruling(
            trial.request.choices.happens(trial.ratio * weights, trial.uniforms), weights=weights
        )


class Grouped(Acceptance):
    """Accept with probability min(1, P(C)/Q(C)), C the codes like the draft in rank and look.

    Lossy: So et al. 2025, "Grouped Speculative Decoding for Autoregressive Image Generation"
    (GSD, arXiv 2508.07747). Read in github.com/junhyukso/GSD
    (scheduler/jacobi_iteration_lumina_mgpt.py): tokens are sorted by their new probability; C is
    the draft, the 7 ranks below it and the 6 above it, less those whose probability differs by
    0.15 or more and those whose squared distance is 0.5 or more; a draft among the 7 least
    probable tokens is judged alone. The token itself is emitted, and the residual is that of the
    exact test. The release measures distance between the language model's input embeddings
    (`embed_tokens.weight`), and its threshold means those of Lumina-mGPT; between rows of a
    codebook 0.5 is another threshold. One difference: a draft that has become impossible is
    judged alone, so that no forbidden token is emitted.

    Args:
        ranks: r; the group spans r ranks below the draft and r - 1 above it. 0 is the exact
            test.
        probability_threshold: Members differ from the draft's probability by less than this.
        distance_threshold: Members have a squared distance to the draft's code below this.
        distance: Where it is measured: one of `image.SPACES`; None is "codebook", which every
            image model has.

    Raises:
        ConfigError: If a value is negative.
    """

    needs = frozenset({"image"})

    def __init__(
        self,
        ranks: int = 7,
        probability_threshold: float = 0.15,
        distance_threshold: float = 0.5,
        distance: str | None = None,
    ) -> None:
        self._space = distance or "codebook"
        check_space(self._space)
        check_whole("ranks", ranks, 0)
        check_number("probability_threshold", probability_threshold, 0)
        check_number("distance_threshold", distance_threshold, 0)
        self._ranks = ranks
        self._most_apart = probability_threshold
        self._most_distant = distance_threshold

    def prepare(self, models: ModelPair) -> None:
        """Refuse a model without a codebook."""
        image_of(models, "Grouped acceptance")

    def judge(self, trial: Trial) -> Ruling:
        """Judge all drafts."""
        return Ruling(trial.request.choices.happens(self.ratio(trial), trial.uniforms))

    def ratio(self, trial: Trial) -> Tensor:
        """Return P(C)/Q(C) of every draft, [M]."""
        laws, old = trial.laws[:-1], trial.old[:-1]
        own = trial.tokens[:, None]
        if not self._ranks:
            return trial.ratio
        mass = laws.gather(1, own)
        members, share = self._members(laws, mass, own)
        mask = (share - mass).abs() < self._most_apart
        mask &= self._alike(trial, members, own) & (share >= 0) & (share[:, -1:] >= 0)
        mask[:, 0] = True
        return (share * mask).sum(-1) / (old.gather(1, members) * mask).sum(-1)

    def _members(self, laws: Tensor, mass: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens around each draft in rank and their probabilities, [M, N] each.

        The draft comes first, then r - 1 above it, then r below it. A place that no token holds
        has probability -1.
        """
        above = laws.where(laws > mass, 2.0).topk(self._ranks - 1, largest=False)
        below = laws.where(laws < mass, -1.0).topk(self._ranks)
        higher = above.values.masked_fill(above.values == 2.0, -1.0)
        members = torch.cat([own, above.indices, below.indices], 1)
        return members, torch.cat([mass, higher, below.values], 1)

    def _alike(self, trial: Trial, members: Tensor, own: Tensor) -> Tensor:
        """Say which members, [M, N], are codes that look like the draft."""
        image = trial.models.image
        assert image is not None, "refused by prepare"
        codes = members - image.first_code
        drafts = own - image.first_code
        inside = (codes >= 0) & (codes < image.codes) & (drafts >= 0) & (drafts < image.codes)
        last = image.codes - 1
        vectors = image.vectors(self._space)
        theirs, own = vectors[codes.clamp(0, last)], vectors[drafts.clamp(0, last)]
        apart = theirs.float() - own.float()
        return inside & (apart.square().sum(-1) < self._most_distant)


ACCEPTANCES: dict[str, type[Acceptance]] = {"ratio": Ratio, "oracle": Oracle}
"""Rules without parameters by the word that names them in a method's file."""
