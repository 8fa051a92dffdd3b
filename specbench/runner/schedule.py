"""What a job has to measure, in which order, and what of it is missing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from specbench.runner.measure import Arm
from specbench.schema.config import RunConfig
from specbench.store import Key
from specbench.tasks.base import Sample, Task


class Pair(NamedTuple):
    """One sample in one repeat, to be measured in every arm.

    Attributes:
        sample: The sample.
        repeat: Index of the repeat.
        flip: Whether the last arm begins.
    """

    sample: Sample
    repeat: int
    flip: bool


def lacking(
    config: RunConfig, arms: Sequence[Arm], task: Task, done: Collection[Key], process: int
) -> list[Pair]:
    """Return the pairs of a process that are not done, with the order of their arms.

    The order flips with the sample, the repeat and the process (ABBA).

    Args:
        config: The job.
        arms: Its arms.
        task: Its samples.
        done: What has been measured.
        process: Index of the process.
    """
    return [
        Pair(sample, repeat, bool((index + repeat + process) % 2))
        for repeat in range(config.timing.repeats)
        for index, sample in enumerate(task.samples)
        if not all(Key(arm.name, sample.id, repeat, process) in done for arm in arms)
    ]
