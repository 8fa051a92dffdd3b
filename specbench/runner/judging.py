"""What is said of an answer beside its time: its score, and whose tokens it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from specbench.audit.fidelity import Fidelity, judge, worst
from specbench.decoding.ledger import StopReason
from specbench.models.pair import ModelPair
from specbench.runner.measure import Measured
from specbench.runner.setup import Job
from specbench.schema.result import BASELINE
from specbench.tasks import sandbox
from specbench.tasks.base import Sample
from specbench.tasks.reasoning import UNFINISHED, opens_thought, score_answers
from specbench.tasks.scorers import PassAt1

_OPENING_TOKENS = 16
"""Tokens at the end of a prompt in which it may open a thought."""
_SHORTEST_REPETITION = 8
_ONE_TOKEN = 0.95
"""Share of an answer that one token makes up where it is nothing but that token."""


class Judge:
    """Scores answers and compares tokens, each once however often it is repeated."""

    def __init__(self, job: Job, models: ModelPair) -> None:
        self._models = models
        self._task = job.task
        self._law = job.law
        self._score = job.config.score
        self._verdicts: dict[tuple[Any, ...], Fidelity] = {}
        self._scores: dict[tuple[Any, ...], tuple[float | None, str]] = {}

    def scored(self, sample: Sample, entry: Measured) -> dict[str, Any]:
        """Score an answer once, however often it is repeated."""
        scorer = self._task.scorer_of(sample)
        if not self._score or scorer is None:
            return {}
        key = (sample.id, *entry.texts)
        if key not in self._scores:
            opened = bool(entry.prompts) and opens_thought(
                self._models.tokenizer.decode(entry.prompts[-1][-_OPENING_TOKENS:])
            )
            score = score_answers(scorer, sample, entry.texts, thinking=opened)
            self._scores[key] = (score.value, score.detail)
        value, detail = self._scores[key]
        return {"score": value, "score_name": scorer.name, "score_detail": detail}

    def judged(self, sample: Sample, baseline: Measured, entry: Measured) -> dict[str, Any]:
        """Compare a faithful method's greedy tokens with the baseline's."""
        if (
            not self._law.greedy
            or entry is baseline
            or not entry.arm.faithful
            or baseline.arm.name != BASELINE
            or baseline.error is not None
        ):
            return {}
        turns = [
            self._verdict(prompt, reference.tokens, output.tokens)
            for prompt, reference, output in zip(
                entry.prompts, baseline.generations, entry.generations, strict=True
            )
        ]
        verdict = worst(turns)
        return {
            "fidelity": str(verdict.grade),
            "first_divergence": verdict.position,
            "top2_gap": verdict.gap,
        }

    def _verdict(
        self, prompt: tuple[int, ...], reference: tuple[int, ...], output: tuple[int, ...]
    ) -> Fidelity:
        key = (prompt, reference, output)
        if key not in self._verdicts:
            self._verdicts[key] = judge(self._models, self._law, prompt, reference, output)
        return self._verdicts[key]


def thought_advice(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say how many samples ended inside a model's reasoning, and what helps; None for none."""
    cut = {row["sample_id"] for row in rows if row.get("score_detail") == UNFINISHED}
    if not cut:
        return None
    return (
        f"{len(cut)} of {len({row['sample_id'] for row in rows})} answers end inside their "
        "reasoning and score 0. \nGive more room (max_new_tokens=8192), or switch reasoning off "
        "(task.prompt.thinking=false)."
    )


def count_answers(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the samples whose answers make times or scores say little.

    A model that is broken, or read in another way than it was trained, often repeats one token,
    and a draft of more of the same is always accepted. An answer that was cut may have been right.

    Returns:
        "repeated", where all answers are one token over and over; "cut", where one ends at
        its limit on new tokens, behind its reasoning, and scores 0; "samples", all of which an
        answer was kept.
    """
    found: dict[str, bool] = {}
    cut = set()
    for row in rows:
        cut_off = row.get("score") == 0 and row.get("stop_reason") == StopReason.LENGTH
        if cut_off and row.get("score_detail") != UNFINISHED:
            cut.add(row["sample_id"])
        for ids in row.get("output_ids") or ():
            found[row["sample_id"]] = found.get(row["sample_id"], True) and _is_repetition(ids)
    return {"repeated": sum(found.values()), "cut": len(cut), "samples": len(found)}


def _is_repetition(ids: Sequence[int]) -> bool:
    body = ids[:-1]  # without what may be a stop token
    if len(body) < _SHORTEST_REPETITION:
        return False
    return Counter(body).most_common(1)[0][1] >= _ONE_TOKEN * len(body)


def score_advice(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what should be known of the scores of a job, a warning a line."""
    return [advice for advice in (thought_advice(rows), sandbox_advice(rows)) if advice]


def sandbox_advice(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say where the walls around generated code are thin; None where none ran, or they are not."""
    if not any(row.get("score_name") == PassAt1.name for row in rows):
        return None
    return sandbox.thin_walls(sandbox.mechanisms())
