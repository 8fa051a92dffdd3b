"""Measure one sample: both arms, turn by turn, interleaved.

Arms take turns within a sample: the order flips with every repeat and with every sample, so that
a machine that speeds up or slows down favours neither (ABBA). In a conversation every arm
continues the same history, that of the baseline's answers, because after one flipped token two
histories would pose two different questions.
"""

from __future__ import annotations

import gc
import hashlib
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from specbench.clock import Clock
from specbench.decoding.ceiling import CeilingProbe
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.ledger import DRAFT, TARGET, Generation, Round
from specbench.decoding.request import Request, StopRule, StopStrings, StopTokens
from specbench.errors import SpecbenchError
from specbench.finite import watching
from specbench.models.pair import ModelPair
from specbench.rng import Streams
from specbench.runner.memory import PeakMemory
from specbench.runner.setup import Arm, Job
from specbench.tasks.base import Sample
from specbench.tasks.prompting import format_prompt, trim_answer
from specbench.tasks.reasoning import readable, spoken


@dataclass
class Measured:
    """What one arm did on one sample in one repeat.

    Attributes:
        arm: Which arm.
        prompts: Token ids of each turn's prompt.
        generations: One for each turn.
        texts: The answers as text.
        error: What stopped it, or None.
        peak_device_bytes: Device memory, None on a CPU.
        peak_rss_bytes: Host memory.
    """

    arm: Arm
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    error: str | None = None
    started: float = 0.0
    peak_device_bytes: int | None = None
    peak_rss_bytes: int | None = None


class Bench:
    """Runs samples under one law on one model pair.

    Args:
        job: Its prompts, stop rules, seed, limit and law.
        models: The pair.
        clock: The clock that fits the device.
        between: Called when a sample has been measured in every arm, outside of what is timed.
    """

    def __init__(
        self, job: Job, models: ModelPair, clock: Clock, between: Callable[[], None] | None = None
    ) -> None:
        self._models = models
        self._task = job.task
        self._law = job.law
        self._seed = job.config.sampling.seed
        self._max_new_tokens = job.config.max_new_tokens
        self._clock = clock
        self._between = between
        self._memory = PeakMemory(models.target.device)

    def prompt(self, sample: Sample) -> list[int]:
        """Return the token ids of a sample's first turn."""
        return self._prompt(sample, [], 0)

    def _prompt(self, sample: Sample, history: Sequence[tuple[str, str]], turn: int) -> list[int]:
        if self._models.image is not None:
            return self._models.image.encode(sample.turns[turn])
        return format_prompt(self._task, sample, history, turn, self._models.tokenizer)

    def request(self, sample: Sample, turn: int, prompt: Sequence[int]) -> Request:
        """Return the request that every arm gets for one turn."""
        image = self._models.image
        limit = self._task.max_new_tokens_of(sample) if image is None else image.grid.length
        assert limit is not None, "only a task of pictures leaves the limit to the model"
        return Request(
            prompt=tuple(prompt),
            max_new_tokens=self._max_new_tokens or limit,
            law=self._law,
            streams=Streams(self._seed, f"{sample.id}#{turn}"),
            stop=self._stop(sample),
        )

    def run(self, sample: Sample, arms: Sequence[Arm], flip: bool) -> list[Measured]:
        """Measure every turn of a sample in every arm.

        Args:
            sample: The sample.
            arms: The arms; the first one's answers are the shared history.
            flip: Whether the first turn begins with the last arm.

        Returns:
            One entry for each arm, in the order of `arms`.
        """
        measured = [Measured(arm, started=time.time()) for arm in arms]
        history: list[tuple[str, str]] = []
        for turn, question in enumerate(sample.turns):
            order = list(measured)
            if flip != bool(turn % 2):
                order.reverse()
            for entry in order:
                if entry.error is None:
                    self._turn(sample, turn, history, entry)
            leader = measured[0]
            if leader.error is not None:
                for entry in measured[1:]:
                    entry.error = entry.error or f"no history: {leader.error}"
                break
            history.append((question, spoken(leader.texts[turn]).text))
        if self._between is not None:
            self._between()
        return measured

    def offers(self, sample: Sample, entry: Measured) -> dict[str, Any]:
        """Replay a measurement untimed and watch the nodes that its verifier visits.

        Tells how often a child was accepted, and how often the best possible verifier would
        have accepted one, for methods that offer several children under a sampling law.

        Returns:
            The `offer_` columns of the row; empty for other methods.
        """
        decoder = entry.arm.decoder
        if (
            entry.error is not None
            or self._law.greedy
            or not isinstance(decoder, DraftVerify)
            or not decoder.topology.several
        ):
            return {}
        decoder.reset()
        probe = CeilingProbe()
        decoder.probe = probe
        try:
            for turn, prompt in enumerate(entry.prompts):
                decoder.generate(self._models, self.request(sample, turn, prompt), self._clock)
        finally:
            decoder.probe = None
        return {
            "offer_visits": probe.visits,
            "offer_accepted": probe.accepted,
            "offer_optimal": probe.optimal,
        }

    def _turn(
        self, sample: Sample, turn: int, history: Sequence[tuple[str, str]], entry: Measured
    ) -> None:
        tokenizer = self._models.tokenizer
        try:
            prompt = tuple(self._prompt(sample, history, turn))
            request = self.request(sample, turn, prompt)
            generation = self._timed(entry, request)
        except (SpecbenchError, RuntimeError, MemoryError) as error:
            what = error.what if isinstance(error, SpecbenchError) else str(error)
            entry.error = f"{type(error).__name__}: {' '.join(what.split())}"
            return
        entry.prompts.append(prompt)
        entry.generations.append(generation)
        if self._models.image is not None:
            entry.texts.append("")
            return
        text = readable(tokenizer, generation.tokens)
        entry.texts.append(trim_answer(text, self._task.stop_of(sample)))

    def _timed(self, entry: Measured, request: Request) -> Generation:
        """Run the decoder with the garbage collector and the progress bar at rest."""
        self._models.settle(len(request.prompt) + request.max_new_tokens)
        self._memory.reset()
        gc.collect(0)
        gc.disable()
        try:
            with watching() as noted:
                generation = entry.arm.decoder.generate(self._models, request, self._clock)
        finally:
            gc.enable()
        entry.peak_device_bytes = _larger(entry.peak_device_bytes, self._memory.device_bytes())
        entry.peak_rss_bytes = _larger(entry.peak_rss_bytes, self._memory.host_bytes())
        noted.check()
        return generation

    def _stop(self, sample: Sample) -> StopRule:
        ids, strings = self._models.stop_ids, self._task.stop_of(sample)
        if not strings:
            return StopTokens(ids)
        tokenizer = self._models.tokenizer
        return StopStrings(
            ids, strings, lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True)
        )


class Place(NamedTuple):
    """When a measurement was taken.

    Attributes:
        repeat: Index of the repeat.
        process: Index of the process.
        position: Place in the interleaved schedule of the process.
    """

    repeat: int
    process: int
    position: int


def result_row(
    measured: Measured,
    sample: Sample,
    names: Mapping[str, str],
    place: Place,
    published: Callable[[Sequence[int]], list[int]] = list,
) -> dict[str, Any]:
    """Return the row of `schema.result.RESULT_SCHEMA` for one measurement, without its scores.

    Args:
        measured: What an arm did.
        sample: On what.
        names: "model" and "task".
        place: When it was measured.
        published: Turns the models' tokens into published ids.
    """
    row: dict[str, Any] = {
        "arm": measured.arm.name,
        "method": measured.arm.method,
        **names,
        "category": sample.category,
        "sample_id": sample.id,
        "repeat": place.repeat,
        "process": place.process,
        "position": place.position,
        "started_unix": measured.started,
        "error": measured.error,
    }
    if measured.error is not None:
        return row
    generations = measured.generations
    rounds = [(turn, r) for turn, g in enumerate(generations) for r in g.rounds]
    total = sum(g.total_ns for g in generations)
    prefill = sum(g.prefill_ns for g in generations)
    device = [g.device_ns for g in generations if g.device_ns is not None]
    sampling = [r.sampling_ns for _, r in rounds if r.sampling_ns is not None]
    return row | {
        "stop_reason": str(generations[-1].stop_reason),
        "prompt_digest": prompt_digest(measured.prompts[0]),
        "prompt_tokens": sum(len(prompt) for prompt in measured.prompts),
        "new_tokens": sum(len(g.tokens) for g in generations),
        "output_ids": [published(g.tokens) for g in generations],
        "output_text": list(measured.texts),
        "total_ns": total,
        "ttft_ns": generations[0].prefill_ns,
        "prefill_ns": prefill,
        "decode_ns": total - prefill,
        "device_ns": sum(device) if device else None,
        "draft_ns": sum(r.draft_ns for _, r in rounds),
        "target_ns": sum(r.target_ns for _, r in rounds),
        "host_ns": sum(r.host_ns for _, r in rounds),
        "sampling_ns": sum(sampling) if sampling else None,
        "target_forwards": sum(r.count.target.forwards for _, r in rounds),
        "target_tokens": sum(r.count.target.tokens for _, r in rounds),
        "draft_forwards": sum(r.count.draft.forwards for _, r in rounds),
        "draft_tokens": sum(r.count.draft.tokens for _, r in rounds),
        "peak_device_bytes": measured.peak_device_bytes,
        "peak_rss_bytes": measured.peak_rss_bytes,
        "rounds": [_round_row(turn, r) for turn, r in rounds],
    }


def prompt_digest(prompt: Sequence[int]) -> str:
    """Return a short hash of a prompt's token ids: what the model was really asked."""
    return hashlib.sha256(array("q", prompt).tobytes()).hexdigest()[:16]


def _round_row(turn: int, entry: Round) -> dict[str, Any]:
    count, times = entry.count, dict(entry.further_ns)
    further = [
        {"role": role, **work._asdict(), "ns": times.get(role, 0)}
        for role, work in count.work.items()
        if role not in (TARGET, DRAFT)
    ]
    return {
        "turn": turn,
        "proposed": count.proposed,
        "accepted": count.accepted,
        "emitted": count.emitted,
        "decided": count.decided,
        "nodes": count.nodes,
        "target_forwards": count.target.forwards,
        "target_tokens": count.target.tokens,
        "draft_forwards": count.draft.forwards,
        "draft_tokens": count.draft.tokens,
        "further": further or None,
        "draft_ns": entry.draft_ns,
        "target_ns": entry.target_ns,
        "host_ns": entry.host_ns,
        "sampling_ns": entry.sampling_ns,
    }


def _larger(left: int | None, right: int | None) -> int | None:
    values = [value for value in (left, right) if value is not None]
    return max(values) if values else None
