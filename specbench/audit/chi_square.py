"""Chi-square tests of sampled outputs, with a false-alarm rate that holds and a power.

Pearson's statistic is compared with the chi-square law of its degrees of freedom, which is good in
the body and poor in the far tail. A rate of one in a million is therefore reached by two tests of
one in a thousand on independent samples: a suspicion, which costs few samples, and its
confirmation on fresh ones. Both rates are checked by simulation in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ncx2

LEAST_EXPECTED = 8.0
"""Cells that are expected less often are pooled."""

CONFIRMATION = 4
"""How many times as many samples confirm a suspicion."""

Key = TypeVar("Key", bound=Hashable)
"""An outcome."""


@dataclass(frozen=True)
class Goodness:
    """A goodness-of-fit test.

    Attributes:
        statistic: Pearson's statistic; infinite where something impossible was seen.
        freedom: Degrees of freedom.
        p_value: Probability of a statistic as large under the expected law.
    """

    statistic: float
    freedom: int
    p_value: float


@dataclass(frozen=True)
class Cells(Generic[Key]):
    """A law over cells, the rare ones pooled for a number of samples.

    Attributes:
        groups: Which cell each outcome belongs to.
        probabilities: Probability of each cell, [C].
        blocks: Which multinomial each cell belongs to, [C]; a single one where all are 0. The
            degrees of freedom are the cells less the blocks.
    """

    groups: Mapping[Key, int]
    probabilities: NDArray[np.float64]
    blocks: NDArray[np.int64]

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""
        return len(self.probabilities) - len(np.unique(self.blocks))


def cells_of(
    law: Mapping[Key, float], samples: int, block: Callable[[Key], Hashable]
) -> Cells[Key]:
    """Return a law's cells; within a block, those expected too rarely are pooled.

    Args:
        law: {outcome: probability}; for several blocks, of block and outcome together.
        samples: Number of outcomes that will be seen.
        block: Names the multinomial of an outcome. A block of one cell tests nothing.
    """
    by_block: dict[Hashable, list[Key]] = {}
    for key in sorted(law, key=lambda key: -law[key]):
        if law[key] > 0:
            by_block.setdefault(block(key), []).append(key)
    groups: dict[Key, int] = {}
    probabilities: list[float] = []
    blocks: list[int] = []
    for number, keys in enumerate(by_block.values()):
        for pool in _pools([law[key] for key in keys], LEAST_EXPECTED / samples):
            for index in pool:
                groups[keys[index]] = len(probabilities)
            probabilities.append(sum(law[keys[index]] for index in pool))
            blocks.append(number)
    return Cells(groups, np.array(probabilities), np.array(blocks, dtype=np.int64))


def _pools(weights: Sequence[float], least: float) -> list[list[int]]:
    """Group descending weights so that every group has at least `least`, if all together have."""
    single = [[index] for index, weight in enumerate(weights) if weight >= least]
    rare = list(range(len(single), len(weights)))
    if not rare:
        return single
    pools: list[list[int]] = [[]]
    for index in rare:
        if sum(weights[i] for i in pools[-1]) >= least:
            pools.append([])
        pools[-1].append(index)
    if sum(weights[i] for i in pools[-1]) < least:
        last = pools.pop()
        if pools:
            pools[-1] += last
        elif single:
            single[-1] += last
        else:
            pools = [last]
    return single + pools


def goodness(counts: Mapping[Key, int], cells: Cells[Key]) -> Goodness:
    """Test counts against the law of cells.

    With several blocks, every block's counts are compared with the law inside of the block: how
    often a block was met is not tested. For the transitions of a Markov chain that is Bartlett's
    test (Billingsley 1961, "Statistical methods in Markov chains").
    """
    seen = np.zeros(len(cells.probabilities))
    for key, count in counts.items():
        if count and key not in cells.groups:
            return Goodness(math.inf, max(cells.freedom, 1), 0.0)
        seen[cells.groups[key]] += count
    size = int(cells.blocks.max(initial=0)) + 1
    met = np.bincount(cells.blocks, seen, size)
    mass = np.bincount(cells.blocks, cells.probabilities, size)
    expected = cells.probabilities / mass[cells.blocks] * met[cells.blocks]
    used = expected > 0
    statistic = float((((seen - expected)[used]) ** 2 / expected[used]).sum())
    if cells.freedom <= 0:
        return Goodness(statistic, 0, 1.0)
    return Goodness(statistic, cells.freedom, float(chi2.sf(statistic, cells.freedom)))


def noncentrality(
    law: Mapping[Key, float], biased: Mapping[Key, float], cells: Cells[Key]
) -> float:
    """Return the noncentrality of one sample from a biased law.

    Outcomes that the true law forbids are left out, although a single one gives the bias away:
    the power is understated.
    """
    true = cells.probabilities
    other = np.zeros(len(true))
    for key, group in cells.groups.items():
        other[group] += biased.get(key, 0.0)
    size = int(cells.blocks.max(initial=0)) + 1
    share_true = true / np.bincount(cells.blocks, true, size)[cells.blocks]
    met = np.maximum(np.bincount(cells.blocks, other, size), 1e-300)
    share = other / met[cells.blocks]
    return float((met[cells.blocks] * (share - share_true) ** 2 / share_true).sum())


def power(noncentrality_of_one: float, freedom: int, samples: int, stage: float) -> float:
    """Return the probability that a bias is suspected and confirmed.

    Args:
        noncentrality_of_one: From `noncentrality`.
        freedom: Degrees of freedom.
        samples: Outcomes of the suspicion; its confirmation has `CONFIRMATION` times as many.
        stage: The false-alarm rate of each of both.
    """
    if freedom <= 0:
        return 0.0
    critical = float(chi2.isf(stage, freedom))

    def found(count: int) -> float:
        shift = noncentrality_of_one * count
        return float(ncx2.sf(critical, freedom, shift)) if shift > 0 else stage

    return found(samples) * found(CONFIRMATION * samples)


def stage_rate(false_alarm: float, tests: int) -> float:
    """Return the rate of each of both stages, so that `tests` tests together keep `false_alarm`.

    Bonferroni over the tests, and the square root because both stages must fail.
    """
    return math.sqrt(false_alarm / max(tests, 1))
