"""Do the intervals cover, how often is nothing called something, and what is found?

Simulates runs whose truth is known and prints, for several kinds of noise and shapes of a run, the
share of 95% intervals that hold the true ratio, the share of A/A runs (plain decoding against
itself) that a comparison calls better or worse, and the share of runs that find a 5% slowdown. The
two verdicts take a fifth of the trials; a tenth of them judges ten rows together and
counts the comparisons in which any is called.

    python -m benchmarks.coverage [--trials 1000] [--seed 0] [--samples 80]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from specbench.compare.build import verdict
from specbench.compare.comparison import BETTER, WORSE, Speedup
from specbench.stats import CONFIDENCE, FloatArray, PooledPasses, holm, noise_floor, paired_ratio
from specbench.stats.ratio import log_ratio

RESAMPLES = 200

FAMILY = 10
"""Rows that are judged together to see whether any is called."""

SHAPES = ((1, 1), (2, 1), (3, 1), (5, 1), (3, 2), (1, 3), (3, 3), (5, 3), (3, 5))
"""Repeats and processes of the simulated runs."""


class Noise(NamedTuple):
    """What moves the times of a run, as standard deviations of their logarithms.

    Attributes:
        title: One phrase.
        cell: Noise of a single measurement.
        prompts: How much the true ratio differs between samples (not in A/A runs).
        common: Movement of a whole pass that both arms share, as interleaved arms do.
        repeats: Movement of one arm in one pass.
        processes: Movement of one arm in one process.
        heavy: Whether a measurement's noise is skewed with a long tail of slow ones.
    """

    title: str
    cell: float
    prompts: float = 0.0
    common: float = 0.0
    repeats: float = 0.0
    processes: float = 0.0
    heavy: bool = False


NOISES = {
    "prompts": Noise("prompts differ by 15%, cells by 5%", 0.05, prompts=0.15),
    "cells": Noise("cells differ by 5%, prompts do not", 0.05),
    "common": Noise("as the first, passes of both arms drift by 3%", 0.05, 0.15, common=0.03),
    "repeats": Noise("one arm moves by 1% in every pass", 0.03, 0.05, repeats=0.01),
    "processes": Noise("one arm moves by 2% in every process", 0.03, 0.05, processes=0.02),
    "heavy": Noise("as the first, skewed with a long tail", 0.05, 0.15, heavy=True),
}


class Times(NamedTuple):
    """Times of both arms, shape (samples, passes), and the process of each pass."""

    baseline: FloatArray
    method: FloatArray
    process: list[int]


def simulate(
    generator: np.random.Generator,
    noise: Noise,
    ratio: float,
    samples: int,
    repeats: int,
    processes: int,
) -> Times:
    """Return a run whose true ratio of total times is `ratio`."""
    label = np.repeat(np.arange(processes), repeats)
    shape = (samples, repeats * processes)

    def cells() -> FloatArray:
        if not noise.heavy:
            return generator.normal(0, noise.cell, shape)
        tail = np.exp(generator.normal(0, 1, shape)) - math.exp(0.5)
        return noise.cell * tail / math.sqrt((math.e - 1) * math.e)

    def moves() -> FloatArray:
        of_pass = generator.normal(0, 1, shape[1]) * noise.repeats
        of_process = generator.normal(0, 1, processes)[label] * noise.processes
        return np.asarray((of_pass + of_process) / math.sqrt(2))

    size = generator.lognormal(0, 0.4, (samples, 1))
    shared = generator.normal(0, 1, shape[1]) * noise.common
    effect = generator.normal(0, 1, (samples, 1)) * noise.prompts - noise.prompts**2 / 2
    baseline = size * np.exp(cells() + shared + moves())
    method = size / ratio * np.exp(cells() + shared + moves() + effect)
    return Times(baseline, method, [int(name) for name in label])


def judged(runs: list[Times]) -> list[str]:
    """Return the verdicts of methods that are compared together."""
    measured = [log_ratio(*run, resamples=RESAMPLES) for run in runs]
    together = PooledPasses.of([each.components for each in measured if each])
    p_values = [
        together.p_value(each.value, each.components)
        for each in measured
        if each and each.components
    ]
    verdicts = []
    for run, each, p_value in zip(runs, measured, holm(p_values), strict=True):
        ratio = paired_ratio(*run, measured=each)
        assert ratio is not None
        floor = noise_floor(run.baseline, run.process, resamples=RESAMPLES)
        verdicts.append(
            verdict(Speedup(ratio.value, ratio.interval, ratio.p_value, p_value, floor, ""))
        )
    return verdicts


def coverage(
    noise: Noise, samples: int, repeats: int, processes: int, trials: int, seed: int
) -> tuple[float, float]:
    """Return the share of intervals that hold the truth and their median half-width (log)."""
    generator = np.random.default_rng([seed, samples, repeats, processes])
    held, widths = 0, []
    for _ in range(trials):
        run = simulate(generator, noise, 1.5, samples, repeats, processes)
        measured = log_ratio(*run, resamples=RESAMPLES)
        assert measured is not None and measured.components is not None
        reach = measured.components.reach(0.5 + CONFIDENCE / 2)
        held += abs(measured.value - math.log(1.5)) <= reach
        widths.append(reach)
    return held / trials, float(np.median(widths))


def called(
    noise: Noise,
    ratio: float,
    samples: int,
    repeats: int,
    processes: int,
    trials: int,
    seed: int,
    together: int = 1,
) -> float:
    """Return the share of comparisons of which any row is better or worse.

    Args:
        noise: What moves the times.
        ratio: The true ratio of every row.
        samples: Number of samples.
        repeats: Repeats in each process.
        processes: Number of processes.
        trials: Number of comparisons.
        seed: Seed of the simulation.
        together: Rows in each comparison.
    """
    generator = np.random.default_rng([seed, samples, repeats, processes, together])
    alarms = 0
    same = noise._replace(prompts=0.0) if ratio == 1 else noise
    for _ in range(trials):
        runs = [
            simulate(generator, same, ratio, samples, repeats, processes) for _ in range(together)
        ]
        alarms += any(found in (BETTER, WORSE) for found in judged(runs))
    return alarms / trials


def table(samples: int, trials: int, seed: int) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield (
        "| noise | repeats | processes | coverage | half-width | A/A called "
        f"| in {FAMILY} rows | 5% slower found |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for noise in NOISES.values():
        for repeats, processes in SHAPES:
            held, width = coverage(noise, samples, repeats, processes, trials, seed)
            fewer = (samples, repeats, processes, max(1, trials // 5), seed)
            alarms = called(noise, 1.0, *fewer)
            found = called(noise, 1 / 1.05, *fewer)
            rows = (samples, repeats, processes, max(1, trials // FAMILY), seed, FAMILY)
            family = called(noise, 1.0, *rows)
            yield (
                f"| {noise.title} | {repeats} | {processes} | {100 * held:.1f}% | "
                f"{100 * width:.1f}% | {100 * alarms:.1f}% | {100 * family:.0f}% | "
                f"{100 * found:.0f}% |"
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for line in table(arguments.samples, arguments.trials, arguments.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
