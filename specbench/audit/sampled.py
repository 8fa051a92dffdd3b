"""Does a sampling decoder follow a real model's law? A test on the first positions of many texts.

Given the tokens before it, every token of a correct decoder is a draw from the target's law. So
for any set of tokens that is fixed before the draw, the share of draws inside is known exactly.
The test counts draws inside of sets in which errors show (`specbench.audit.witnesses`) and weighs
each count against its expectation by a likelihood ratio: a decoder that hits a set of known
probability c with odds exp(k) times higher against one that follows the law,

    exp(k [hit]) / (1 - c + c exp(k)).

Where the law of an error is known it is weighed by its own likelihood ratio, the sharpest there
is (`specbench.audit.alternatives`). Under the target's law the product of such ratios has mean 1,
whatever the decoder drew before; so has the weighted mean of the products over sets, positions,
k, and errors. It ever exceeds 1 / alpha with probability at most alpha (Ville's inequality, 1939):
the false-alarm rate holds at every sample size and assumes no large-sample approximation (Shafer
2021, "Testing by betting", JRSS A 184).

Shapes: T positions, S sets, G counts (sets at every position and over all of them), K values of
k, A laws of errors, W shares of tokens that follow them, M = G K + A W ratios in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from specbench.audit.alternatives import LAWS, PLANTED, SHARES
from specbench.audit.verdict import Check, CheckOutcome, Kind
from specbench.audit.witnesses import NAMES, PromptLaws, Sets
from specbench.clock import clock_for
from specbench.decoding.base import Decoder
from specbench.decoding.request import Request, StopTokens
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.rng import Streams

FALSE_ALARM = 1e-4
"""Probability that a correct decoder fails the test on one model."""

POSITIONS = 12
"""How many positions are tested: a prefill, a round of usual length and the begin of another."""

SAMPLES = 600

_TILTS = tuple(sign * size for size in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6) for sign in (-1, 1))
_RESAMPLES = 400
_KNOWN_SHARE = 0.5
"""Prior weight of the known errors; the sets share the rest."""

_POOLED_SHARE = 0.25
"""Prior weight of the sets over all positions; those at single ones share what is left."""


@dataclass(frozen=True)
class Plan:
    """What is sampled.

    Attributes:
        prompts: Token ids of each prompt; samples go round them.
        law: The target's law, not greedy.
        samples: Number of generations.
        positions: Tokens that each generates at most.
        seed: Of every random stream.
    """

    prompts: Sequence[tuple[int, ...]]
    law: Law
    samples: int = SAMPLES
    positions: int = POSITIONS
    seed: int = 0

    def requests(self, stop: frozenset[int]) -> Iterator[Request]:
        """Yield the requests, prompt by prompt."""
        for index, prompt in enumerate(self.prompts):
            for number in range(index, self.samples, len(self.prompts)):
                streams = Streams(self.seed, f"audit/{index}/{number}")
                yield Request(prompt, self.positions, self.law, streams, StopTokens(stop))


@dataclass
class Evidence:
    """What the samples of one decoder say against the target's law.

    Attributes:
        positions: T.
        terms: For every generation the logarithm of its likelihood ratios, [M].
        planted: The same for the generations with errors planted, by the error's name.
        impossible: What no correct decoder can emit, in words; empty where there is nothing.
    """

    positions: int
    terms: list[Tensor] = field(default_factory=list)
    planted: dict[str, list[Tensor]] = field(default_factory=dict)
    impossible: str = ""
    _counts: Tensor | None = field(default=None, repr=False)
    _sums: Tensor | None = field(default=None, repr=False)

    def add(self, sets: Sets, planted: Sequence[Sets] = ()) -> None:
        """Count one generation, and the same with errors planted."""
        parts = (sets.hits, sets.chances, torch.ones_like(sets.hits))
        counted = torch.stack([_with_totals(self._padded(part)) for part in parts])
        self._counts = counted if self._counts is None else self._counts + counted
        self.terms.append(self._terms(sets))
        self._sums = self.terms[-1] if self._sums is None else self._sums + self.terms[-1]
        for name, wrong in zip(PLANTED, planted, strict=False):
            self.planted.setdefault(name, []).append(self._terms(wrong))

    @property
    def value(self) -> float:
        """Natural logarithm of the evidence against the law; infinite for the impossible."""
        if self.impossible:
            return math.inf
        return 0.0 if self._sums is None else float(self._weighed(self._sums[None])[0])

    def found(self, false_alarm: float = FALSE_ALARM) -> bool:
        """Whether the law is refuted at a false-alarm rate."""
        return self.value >= -math.log(false_alarm)

    def power(self, size: int | None = None) -> float:
        """Return the share of samples, drawn again from these, that refute the law.

        Args:
            size: Generations of a sample; as many as there are where it is None.
        """
        return 1.0 if self.impossible else self._power(self.terms, size or len(self.terms))

    def powers(self) -> dict[str, float]:
        """Return the same for every error that was planted."""
        return {name: self._power(terms, len(terms)) for name, terms in self.planted.items()}

    def strongest(self) -> str:
        """Say in words what speaks most against the law."""
        if self.impossible:
            return self.impossible
        assert self._sums is not None and self._counts is not None
        known = len(LAWS) * len(SHARES)
        best = int((self._sums + self._prior()).argmax())
        first = len(self._sums) - known
        if best >= first:
            law, share = divmod(best - first, len(SHARES))
            odds = math.exp(min(float(self._sums[best]), 690.0))
            return f"{LAWS[law]}, {SHARES[share]:.0%} of tokens: {odds:.3g} times as likely"
        place, number = divmod(best // len(_TILTS), len(NAMES))
        where = "all positions" if place == self.positions else f"position {place + 1}"
        hits, chances, draws = self._counts[:, best // len(_TILTS)].tolist()
        return (
            f"{NAMES[number]}, {where}: {hits / max(draws, 1):.1%} of draws, "
            f"{chances / max(draws, 1):.1%} expected"
        )

    def _terms(self, sets: Sets) -> Tensor:
        """Return the logarithm of every likelihood ratio of one generation, [M]."""
        tilts = torch.tensor(_TILTS, dtype=torch.float64)
        hits, chances = self._padded(sets.hits), self._padded(sets.chances)
        counted = tilts * hits[..., None] - torch.log1p(chances[..., None] * tilts.expm1())
        return torch.cat([_with_totals(counted).flatten(), sets.ratios.sum(0).flatten()])

    def _padded(self, values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (0, 0, 0, self.positions - len(values)))

    def _power(self, terms: Sequence[Tensor], size: int) -> float:
        stacked = torch.stack(list(terms))
        generator = torch.Generator().manual_seed(0)
        counts = torch.ones(len(terms), dtype=torch.float64).multinomial(
            _RESAMPLES * size, replacement=True, generator=generator
        )
        weights = torch.zeros(_RESAMPLES, len(terms), dtype=torch.float64)
        rows = torch.arange(_RESAMPLES).repeat_interleave(size)
        weights.index_put_((rows, counts), torch.ones(1, dtype=torch.float64), accumulate=True)
        values = self._weighed(weights @ stacked)
        return float((values >= -math.log(FALSE_ALARM)).double().mean())

    def _weighed(self, sums: Tensor) -> Tensor:
        """Return the log of the weighted mean of the products of ratios, [R], of [R, M]."""
        return (sums + self._prior()).logsumexp(-1)

    def _prior(self) -> Tensor:
        """Return the logarithm of the weight of every ratio, [M]; the weights sum to one."""
        single = self.positions * len(NAMES) * len(_TILTS)
        pooled = len(NAMES) * len(_TILTS)
        known = len(LAWS) * len(SHARES)
        weights = [
            torch.full((number,), share / number, dtype=torch.float64)
            for number, share in (
                (single, 1 - _KNOWN_SHARE - _POOLED_SHARE),
                (pooled, _POOLED_SHARE),
                (known, _KNOWN_SHARE),
            )
        ]
        return torch.cat(weights).log()


def sample_law(
    decoder: Decoder,
    models: ModelPair,
    plan: Plan,
    *,
    drafts: bool = False,
    whole: bool = False,
    planted: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Evidence:
    """Draw generations and weigh them against the target's law.

    Sampling ends early where the law is refuted; the false-alarm rate allows for looking often.

    Args:
        decoder: The decoder; its carried state is reset before every generation.
        models: Bound to the plan's law.
        plan: What is sampled.
        drafts: Whether the draft model's law names a set too.
        whole: Whether to draw all samples although the law is refuted by some.
        planted: Whether to weigh the same generations with errors planted, too.
        advance: Called after every generation.

    Raises:
        SpecbenchError: If the decoder refuses a request.
    """
    evidence = Evidence(plan.positions)
    clock = clock_for(models.target.device)
    generator = torch.Generator().manual_seed(plan.seed)
    scorer: PromptLaws | None = None
    for request in plan.requests(models.stop_ids):
        if scorer is None or scorer.prompt != request.prompt:
            scorer = PromptLaws(models, request, drafts)
        decoder.reset()
        models.settle(len(request.prompt) + request.max_new_tokens)
        tokens = decoder.generate(models, request, clock).tokens
        evidence.impossible = _misshapen(tokens, request, models.target.vocab_size)
        if not evidence.impossible:
            sets, errors = scorer.score(tokens, generator, planted)
            evidence.impossible = sets.impossible
            evidence.add(sets, errors)
        advance()
        if evidence.impossible or (not whole and evidence.found()):
            break
    return evidence


def check_of(evidence: Evidence, name: str, faithful: bool) -> Check:
    """Return the check that says what evidence was found.

    Args:
        evidence: Of the audited decoder.
        name: The law in words.
        faithful: Whether the method promises the law; else the value is only shown.
    """
    found = evidence.found()
    outcome = (
        (CheckOutcome.FAIL if found else CheckOutcome.PASS) if faithful else CheckOutcome.MEASURED
    )
    return Check(
        name=name,
        kind=Kind.SAMPLED_LAW,
        outcome=outcome,
        statistic=evidence.value,
        bound=-math.log(FALSE_ALARM),
        p_value=min(1.0, math.exp(-evidence.value)),
        samples=len(evidence.terms),
        false_alarm=FALSE_ALARM,
        powers=evidence.powers(),
        detail=evidence.strongest(),
    )


def _with_totals(values: Tensor) -> Tensor:
    """Return [T, S, ...] with the sums over positions as one more row, flat: [(T + 1) S, ...]."""
    return torch.cat([values, values.sum(0, keepdim=True)]).flatten(0, 1)


def _misshapen(tokens: Sequence[int], request: Request, vocabulary: int) -> str:
    """Say what is wrong with the length or the ids of an output; empty where nothing is."""
    outside = [token for token in tokens if not 0 <= token < vocabulary]
    if outside:
        return f"token {outside[0]} is not in the vocabulary"
    if len(tokens) > request.max_new_tokens:
        return f"{len(tokens)} tokens where {request.max_new_tokens} were asked for"
    cut = request.stop.find(tokens, 0)
    if cut is not None and cut.length < len(tokens):
        return f"{len(tokens) - cut.length} tokens behind the end of the text"
    if cut is None and len(tokens) < request.max_new_tokens:
        return f"ends after {len(tokens)} tokens without an end of text"
    return ""
