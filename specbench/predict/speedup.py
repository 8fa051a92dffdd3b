"""Speedup by batch size and draft length, the best length, and the batch from which it is lost.

Speedup = tokens of a round x time of a plain step / time of a round, at one batch size. A plain
step is one target forward of one token for every request. A round drafts, then verifies all
drafted tokens of all requests in one target forward, then does host work. Requests of a batch
accept different numbers of tokens; each goes on from its own, without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from specbench.errors import UsageError
from specbench.predict.acceptance import walltime_factor
from specbench.predict.profile import Profile, RoundWork
from specbench.predict.roofline import Forward, Roofline
from specbench.schema.hardware import Hardware
from specbench.schema.shape import Shape

LARGEST_BATCH = 4096
"""Where the search for the batch at which speculation stops paying ends."""

_NOTHING = Forward(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Question:
    """What to predict.

    Attributes:
        hardware: The device.
        target: Shape of the target.
        draft: Shape of the draft, or None where no method runs one.
        dtype: Number format of both.
        context: Tokens in the cache of every request.
        batches: Batch sizes.
        lengths: Draft lengths to try.
    """

    hardware: Hardware
    target: Shape
    draft: Shape | None
    dtype: str
    context: int
    batches: tuple[int, ...]
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        for option, values in (("batch", self.batches), ("length", self.lengths)):
            if not values or min(values) < 1:
                raise UsageError(
                    f"--{option} cannot be {', '.join(map(str, values)) or 'empty'}",
                    "it is one whole number from 1, or several",
                )
        if self.context < 0:
            raise UsageError(f"--context cannot be {self.context}", "it counts tokens, from 0")


class Cell(NamedTuple):
    """The prediction at one batch size and draft length.

    Attributes:
        batch: Requests decoded together.
        length: Draft tokens on the longest path; None is the draft as it was measured.
        speedup: Over plain decoding at the same batch size.
        tokens: Tokens of a round and request.
        tokens_per_second: Of the whole batch.
        draft_seconds: Drafting of a round.
        target_seconds: Verifying.
        host_seconds: Host work that plain decoding does not have.
        bound: What takes most of the round: "weights", "cache", "compute" or "overhead".
        extrapolated: Whether the length was never measured, or tested too rarely.
    """

    batch: int
    length: int | None
    speedup: float
    tokens: float
    tokens_per_second: float
    draft_seconds: float
    target_seconds: float
    host_seconds: float
    bound: str
    extrapolated: bool


class BatchPrediction(NamedTuple):
    """The prediction at one batch size.

    Attributes:
        batch: Requests decoded together.
        plain_tokens_per_second: Plain decoding, the whole batch.
        measured: With drafts as they were measured.
        best: At the best of the lengths; `measured` where the length cannot be varied.
        independent: Speedup at the best length under independent acceptance (Leviathan et al.
            2023, Theorem 3.8), beside which `best` shows what positions, the width of the
            verification and the host's work change; None where no model drafts a chain.
        sweep: A cell for each length; empty where it cannot be varied.
        memory_bytes: Weights and caches of target and draft.
        fits: Whether the device can hold them.
    """

    batch: int
    plain_tokens_per_second: float
    measured: Cell
    best: Cell
    independent: float | None
    sweep: tuple[Cell, ...]
    memory_bytes: float
    fits: bool


class Prediction(NamedTuple):
    """One method on the hardware in question.

    Attributes:
        profile: What was measured of it.
        batches: A prediction for each batch size.
        stops_paying: The smallest batch at which no length is faster than plain decoding; None
            where there is none up to the last batch that fits or was asked for.
        largest_batch: The last batch that fits into memory; 0 where not even one request does.
        notes: What is special about this method's prediction, as sentences.
    """

    profile: Profile
    batches: tuple[BatchPrediction, ...]
    stops_paying: int | None
    largest_batch: int
    notes: tuple[str, ...]


def predict(profile: Profile, question: Question) -> Prediction:
    """Predict one method.

    Raises:
        UsageError: If the method runs a draft model and the question has no shape for it, or the
            hardware has no rate for the number format.
    """
    if profile.drafter == "model" and question.draft is None:
        raise UsageError(
            f"'{profile.label}' drafts with a model", "its shape is not named", "Add --draft."
        )
    costs = _Costs(profile, question)
    lengths = () if profile.fixed else question.lengths
    works = [(None, profile.work), *((length, profile.at(length)) for length in lengths)]
    batches = tuple(_at_batch(costs, works, batch) for batch in question.batches)
    largest = costs.largest_batch()
    return Prediction(
        profile=profile,
        batches=batches,
        stops_paying=_stops_paying(costs, works, max(largest or LARGEST_BATCH, *question.batches)),
        largest_batch=largest,
        notes=(*profile.notes, *costs.notes()),
    )


_Works = Sequence[tuple[int | None, RoundWork]]


class _Costs:
    """Times of one method on one device."""

    def __init__(self, profile: Profile, question: Question) -> None:
        self.profile = profile
        self._question = question
        self.roofline = Roofline(
            question.hardware, question.dtype, question.context, rows=profile.rows
        )
        measured = profile.cost
        self._share = 1.0
        self._lookup = 0.0
        if measured is not None and profile.drafter == "self":
            self._share = measured.draft / profile.work.draft_forwards
        if measured is not None and profile.drafter == "lookup":
            self._lookup = measured.draft * measured.plain_seconds

    def notes(self) -> list[str]:
        """Return what this method's prediction rests on beside the roofline."""
        profile = self.profile
        found = []
        if profile.drafter == "self" and profile.cost is None:
            found.append(
                "what a forward with parts left out costs is unknown: taken as a whole one"
            )
        elif profile.drafter == "self":
            found.append(
                f"a draft forward is taken as {self._share:.2f} target forwards, as measured"
            )
        if self._lookup:
            found.append(
                f"drafting takes {self._lookup * 1e3:.2g} ms of host time a round, as measured on "
                f"{profile.device}"
            )
        if profile.branches and not profile.fixed:
            found.append(
                "the size of its tree is spread evenly over its depth, for want of its form"
            )
        if profile.fixed:
            found.append(f"only the measured draft is predicted: {profile.fixed}")
        draft = self._question.draft
        if profile.drafter == "model" and draft is not None:
            target = self._question.target
            if draft.parameters >= target.parameters:
                found.append(f"the draft ({draft.name}) is not smaller than the target")
        return found

    def plain_seconds(self, batch: int) -> float:
        """Return the time of one plain step."""
        return self.roofline.forward(self._question.target, batch, 1.0).seconds

    def draft(self, work: RoundWork, batch: int) -> Forward:
        """Return the cost of a round's draft forwards."""
        if self.profile.drafter == "lookup" or not work.draft_forwards:
            return _NOTHING
        tokens = work.draft_tokens / work.draft_forwards
        if self.profile.drafter == "self":
            once = self.roofline.forward(self._question.target, batch, tokens)
            return once.scaled(self._share * work.draft_forwards)
        assert self._question.draft is not None
        once = self.roofline.forward(self._question.draft, batch, tokens)
        return once.scaled(work.draft_forwards)

    def target(self, work: RoundWork, batch: int) -> Forward:
        """Return the cost of a round's target forwards."""
        tokens = work.target_tokens / work.target_forwards
        once = self.roofline.forward(self._question.target, batch, tokens)
        return once.scaled(work.target_forwards)

    def cell(self, length: int | None, work: RoundWork, batch: int) -> Cell:
        """Return the prediction at one length and batch size."""
        draft, target = self.draft(work, batch), self.target(work, batch)
        host = self._question.hardware.assumed.round_overhead_us * 1e-6 + self._lookup
        total = draft.seconds + target.seconds + host
        parts = {
            name: getattr(draft, name) + getattr(target, name)
            for name in ("weights", "cache", "compute", "overhead")
        }
        parts["overhead"] += host
        return Cell(
            batch=batch,
            length=length,
            speedup=work.tokens * self.plain_seconds(batch) / total,
            tokens=work.tokens,
            tokens_per_second=batch * work.tokens / total,
            draft_seconds=draft.seconds,
            target_seconds=target.seconds,
            host_seconds=host,
            bound=max(parts, key=lambda name: parts[name]),
            extrapolated=length is not None and self.profile.extrapolated(length),
        )

    def independent(self, length: int | None, batch: int) -> float | None:
        """Return the speedup of Theorem 3.8 at a length, or None where it does not apply."""
        profile = self.profile
        if length is None or profile.branches or profile.drafter == "lookup":
            return None
        one = RoundWork(1.0, 1.0, 1.0, 1.0, 1.0)
        ratio = self.draft(one, batch).seconds / self.plain_seconds(batch)
        return walltime_factor(profile.acceptance_rate, length, ratio)

    def memory(self, batch: int) -> float:
        """Return the bytes that a batch needs."""
        models = [self._question.target]
        if self.profile.drafter == "model" and self._question.draft is not None:
            models.append(self._question.draft)
        return sum(self.roofline.memory(shape, batch) for shape in models)

    def largest_batch(self) -> int:
        """Return the last batch that fits, 0 for none."""
        weights = self.memory(0)
        each = self.memory(1) - weights
        free = self.roofline.usable_memory() - weights
        if free < each or free < 0:
            return 0
        return min(LARGEST_BATCH, int(free / each)) if each else LARGEST_BATCH


def _at_batch(costs: _Costs, works: _Works, batch: int) -> BatchPrediction:
    measured, *sweep = (costs.cell(length, work, batch) for length, work in works)
    memory = costs.memory(batch)
    best = max(sweep, key=lambda cell: cell.speedup) if sweep else measured
    return BatchPrediction(
        batch=batch,
        plain_tokens_per_second=batch / costs.plain_seconds(batch),
        measured=measured,
        best=best,
        independent=costs.independent(best.length, batch),
        sweep=tuple(sweep),
        memory_bytes=memory,
        fits=memory <= costs.roofline.usable_memory(),
    )


def _stops_paying(costs: _Costs, works: _Works, last: int) -> int | None:
    """Return the first batch at which nothing is faster than plain decoding, up to `last`.

    Batches are doubled until one loses; between it and the one before, the first loser is found
    by halving.
    """

    def pays(batch: int) -> bool:
        tried = works[1:] or works
        return any(costs.cell(length, work, batch).speedup >= 1.0 for length, work in tried)

    good, bad = 0, 1
    while pays(bad):
        if bad >= last:
            return None
        good, bad = bad, min(2 * bad, last)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if pays(middle) else (good, middle)
    return bad
