"""What is said of an answer beside its time: its score, and whose tokens it has."""

from __future__ import annotations

from typing import Any

from specbench.audit.fidelity import Fidelity, judge, worst
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.runner.measure import Measured
from specbench.schema.result import BASELINE
from specbench.tasks.base import Sample, Task


class Judge:
    """Scores answers and compares tokens, each once however often it is repeated.

    Args:
        models: The pair.
        task: Its samples and scorers.
        law: The target's law.
        score: Whether answers are scored.
    """

    def __init__(self, models: ModelPair, task: Task, law: Law, score: bool) -> None:
        self._models = models
        self._task = task
        self._law = law
        self._score = score
        self._verdicts: dict[tuple[Any, ...], Fidelity] = {}
        self._scores: dict[tuple[Any, ...], tuple[float | None, str]] = {}

    def scored(self, sample: Sample, entry: Measured) -> dict[str, Any]:
        """Score an answer once, however often it is repeated."""
        scorer = self._task.scorer_of(sample)
        if not self._score or scorer is None:
            return {}
        key = (sample.id, *entry.texts)
        if key not in self._scores:
            score = scorer.score(sample, entry.texts)
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
