"""How much a job has to do, said before it begins, and how long it takes, once that is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specbench.report.terminal import Terminal
from specbench.runner.measure import Measured
from specbench.runner.progress import Progress
from specbench.runner.setup import Job


class Work(NamedTuple):
    """How much a job has to do, if nothing of it is done.

    Attributes:
        samples: Samples of the task.
        turns: Their turns; each is one generation of an arm.
        arms: The baseline and the method.
        passes: Repeats, in all processes.
        warmup: Generations that are not recorded.
    """

    samples: int
    turns: int
    arms: int
    passes: int
    warmup: int

    @classmethod
    def of(cls, job: Job) -> Work:
        """Return the work of a job."""
        turns = [len(sample.turns) for sample in job.task.samples]
        timing, arms = job.config.timing, len(job.arms)
        warmup = sum(turns[: timing.warmup]) * arms * timing.processes
        passes = timing.repeats * timing.processes
        return cls(len(turns), sum(turns), arms, passes, warmup)

    @property
    def generations(self) -> int:
        """Recorded generations of all arms."""
        return self.turns * self.arms * self.passes

    def describe(self, pictures: bool) -> str:
        """Return it in words."""
        what = _many(self.generations, "picture" if pictures else "generation")
        parts = [_many(self.samples, "sample"), _many(self.arms, "arm")]
        if self.turns > self.samples:
            parts[0] += f" of {_many(self.turns, 'turn')}"
        parts.append(_many(self.passes, "repeat"))
        warmup = f", and {self.warmup:,} to warm up" if self.warmup else ""
        return f"{what} ({', '.join(parts)}){warmup}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def announce(job: Job) -> None:
    """Say how many generations a job makes, before its models are loaded."""
    if job.config.progress:
        work = Work.of(job).describe(job.config.model.modality == "image")
        Terminal(stderr=True).print(f"{job.label}: {work}", soft_wrap=True)


def pace(measured: Sequence[Measured]) -> float | None:
    """Return the seconds that one sample took in all arms; None where an arm failed."""
    if any(entry.error is not None for entry in measured):
        return None
    return sum(g.total_ns for entry in measured for g in entry.generations) / 1e9


def foretell(progress: Progress, pairs: int, seconds: float | None, of: str) -> None:
    """Say how long a job will take.

    Args:
        progress: Where to say it.
        pairs: Samples and repeats that are left, each in every arm.
        seconds: What one of them takes; None says nothing.
        of: Where that was seen.
    """
    if seconds and pairs:
        progress.note(f"about {lasting(pairs * seconds)} to go, at the pace of {of}")


def lasting(seconds: float) -> str:
    """Return a length of time in words, as rough as an estimate is."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{int(seconds < 10 * length)}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"
