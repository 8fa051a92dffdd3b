"""What the figures of a report show, as plain values that a chart of any kind draws.

The page's charts, the plots for papers and their tables read the same values, so that one method
cannot look different in two of them. Every function takes the rows of one section; a row without
the value is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from specbench.compare.comparison import OVERALL, ComparisonRow
from specbench.report import words

EXACTNESS = ("exact", "greedy", "lossy", "unknown")
"""The classes of methods, strictest first; of an imported method it may not be known."""

WIDEST = 3.0
"""How far beyond the values an axis of ratios reaches for the ends of intervals, as a factor."""


class SpeedupMark(NamedTuple):
    """One method's end-to-end speedup.

    Attributes:
        label: The row's label.
        exactness: One of `EXACTNESS`.
        value: Baseline's time over the method's.
        low: Lower end of the 95% interval; None without one.
        high: Upper end.
        floor: The run's noise floor, a ratio above 1; None where it was not measured.
        verdict: "better", "worse", "same" or "inconclusive".
    """

    label: str
    exactness: str
    value: float
    low: float | None
    high: float | None
    floor: float | None
    verdict: str


class TimeSplit(NamedTuple):
    """Milliseconds per emitted token after the first, by kind of work.

    `sampling` is 0 where no device was timed: the host's time holds it.
    """

    label: str
    exactness: str
    draft: float
    target: float
    host: float
    sampling: float = 0.0

    @property
    def total(self) -> float:
        """Milliseconds per token."""
        return self.draft + self.target + self.host + self.sampling


class LengthHistogram(NamedTuple):
    """Shares of the verification rounds that accepted 0, 1, 2, ... draft tokens.

    Attributes:
        label: The row's label.
        exactness: One of `EXACTNESS`.
        shares: Sums to 1.
        rounds: Number of rounds.
        mal: Mean acceptance length, bonus included; None where it is not defined.
    """

    label: str
    exactness: str
    shares: tuple[float, ...]
    rounds: int
    mal: float | None


class PositionCurve(NamedTuple):
    """Chance of acceptance by draft position, given that all earlier ones were accepted."""

    label: str
    exactness: str
    rates: tuple[float, ...]


class TradePoint(NamedTuple):
    """One arm's speed and quality.

    Attributes:
        label: The row's label.
        exactness: One of `EXACTNESS`.
        is_baseline: Whether this is plain decoding.
        speedup: End to end; 1 for the baseline.
        quality: Paired difference to the baseline, or the value of a whole set of pictures.
        low: Lower end of the quality's 95% interval; None without one.
        high: Upper end.
        on_frontier: Whether no other arm is at least as fast and as good, and better in one.
    """

    label: str
    exactness: str
    is_baseline: bool
    speedup: float
    quality: float
    low: float | None
    high: float | None
    on_frontier: bool


class Trade(NamedTuple):
    """Quality against speed under one measure of quality.

    Attributes:
        name: Id of the measure.
        axis: What the quality axis shows, in words.
        higher_is_better: The measure's polarity.
        floor: The value of as many real pictures; None where there is none.
        points: The baseline first.
    """

    name: str
    axis: str
    higher_is_better: bool
    floor: float | None
    points: tuple[TradePoint, ...]


class Prediction(NamedTuple):
    """Decode speedup that acceptance and cost predict, beside the observed one."""

    label: str
    exactness: str
    predicted: float
    observed: float
    low: float | None
    high: float | None
    overhead: float | None


def clipped_ends(values: Sequence[float], ends: Iterable[float | None]) -> list[float]:
    """Return the values and the ends of their intervals, the ends at most three times beyond.

    An interval of two noisy samples may span decades; an axis that held it would show nothing
    else. A chart that is given these draws such an interval to its edge.
    """
    low, high = min(values) / WIDEST, max(values) * WIDEST
    return [*values, *(min(max(end, low), high) for end in ends if end is not None)]


def interval_in_words(value: float, low: float | None, high: float | None) -> str:
    """Return a ratio with its interval, such as "1.62x [1.55, 1.70]"."""
    return (
        f"{value:.2f}x" if low is None or high is None else f"{value:.2f}x [{low:.2f}, {high:.2f}]"
    )


def share(value: float) -> str:
    """Return a share as a percentage, one between none and a hundredth with a digit more."""
    percent = 100 * value
    return f"{percent:.1f}%" if 0 < percent < 0.95 else f"{percent:.0f}%"


def class_of(row: ComparisonRow) -> str:
    """Return the class of a row's method, one of `EXACTNESS`."""
    found = row.method.exactness
    return found if found in EXACTNESS else "unknown"


def section_name(name: str, sections: Sequence[str]) -> str:
    """Return how a section's column is headed: without the task that all of them share."""
    if name == OVERALL:
        return "all"
    tasks = {section.partition(" / ")[0] for section in sections if section != OVERALL}
    category = name.partition(" / ")[2]
    return category if len(tasks) == 1 and category else name


def speedups(rows: Iterable[ComparisonRow]) -> list[SpeedupMark]:
    """Return the methods' speedups in the order of the rows."""
    marks = []
    for row in rows:
        found = row.speedup_e2e
        if found is None:
            continue
        low, high = found.interval or (None, None)
        marks.append(
            SpeedupMark(
                row.label,
                class_of(row),
                found.value,
                low,
                high,
                found.noise_floor,
                found.verdict,
            )
        )
    return marks


def time_splits(rows: Iterable[ComparisonRow]) -> list[TimeSplit]:
    """Return each arm's milliseconds per token, the mean of a round over what a round emits."""
    splits = []
    for row in rows:
        time, length = row.quantities["round_time"], row.quantities["mal"]
        if time is None or not length:
            continue
        parts = ((part or 0.0) / length for part in time)
        splits.append(TimeSplit(row.label, class_of(row), *parts))
    return splits


def work_of(splits: Sequence[TimeSplit]) -> tuple[str, ...]:
    """Return the kinds of work that time splits tell apart, in the order of a round."""
    sampled = any(split.sampling for split in splits)
    return ("draft", "target", "sampling", "host") if sampled else ("draft", "target", "host")


def histograms(rows: Iterable[ComparisonRow]) -> list[LengthHistogram]:
    """Return the histograms of the methods that accepted anything at all."""
    found = []
    for row in rows:
        counts = row.quantities["acceptance_histogram"]
        total = sum(counts)
        if len(counts) < 2 or not total:
            continue
        shares = tuple(count / total for count in counts)
        found.append(
            LengthHistogram(row.label, class_of(row), shares, total, row.quantities["mal"])
        )
    return found


def position_curves(rows: Iterable[ComparisonRow]) -> list[PositionCurve]:
    """Return the acceptance by position of the methods that propose drafts."""
    return [
        PositionCurve(row.label, class_of(row), row.quantities["acceptance_by_position"])
        for row in rows
        if row.quantities["acceptance_by_position"]
    ]


def predictions(rows: Iterable[ComparisonRow]) -> list[Prediction]:
    """Return predicted beside observed decode speedups."""
    found = []
    for row in rows:
        if row.predicted_speedup is None or row.speedup_decode is None:
            continue
        low, high = row.speedup_decode.interval or (None, None)
        found.append(
            Prediction(
                row.label,
                class_of(row),
                row.predicted_speedup,
                row.speedup_decode.value,
                low,
                high,
                row.overhead,
            )
        )
    return found


def trades(rows: Sequence[ComparisonRow]) -> list[Trade]:
    """Return quality against speed for the task's score and for each metric of the pictures.

    Scores and metrics of single pictures are paired differences to the baseline, which is
    drawn at 0; metrics of whole sets are values.
    """
    found = []
    names = {row.score_name for row in rows if row.score is not None}
    if names:
        name = names.pop() if len(names) == 1 else "mean score"
        points = [_score_point(row) for row in rows]
        axis = f"{name}, difference to the baseline"
        found.append(_trade("score", axis, True, None, points))
    for name in words.metrics_of(rows):
        if any(name in row.quality for row in rows):
            better = next(row.quality[name].better for row in rows if name in row.quality)
            points = [_quality_point(row, name) for row in rows]
            axis = f"{name}, difference to the baseline"
            found.append(_trade(name, axis, better == "higher", None, points))
        else:
            figures = [row.corpus[name] for row in rows if name in row.corpus]
            floors = [figure.floor for figure in figures if figure.floor is not None]
            points = [_corpus_point(row, name) for row in rows]
            floor = max(floors) if floors else None
            found.append(_trade(name, name, figures[0].better == "higher", floor, points))
    return [trade for trade in found if any(not point.is_baseline for point in trade.points)]


def _score_point(row: ComparisonRow) -> TradePoint | None:
    if row.is_baseline:
        return _point(row, 0.0) if row.score is not None else None
    difference = row.score_difference
    return None if difference is None else _point(row, difference.value, difference.interval)


def _quality_point(row: ComparisonRow, name: str) -> TradePoint | None:
    figure = row.quality.get(name)
    if figure is None or (figure.difference is None and not row.is_baseline):
        return None
    if figure.difference is None:
        return _point(row, 0.0)
    return _point(row, figure.difference.value, figure.difference.interval)


def _corpus_point(row: ComparisonRow, name: str) -> TradePoint | None:
    figure = row.corpus.get(name)
    if figure is None:
        return None
    if figure.error is None:
        return _point(row, figure.value)
    reach = 1.96 * figure.error
    return _point(row, figure.value, (figure.value - reach, figure.value + reach))


def _point(
    row: ComparisonRow, quality: float, interval: tuple[float, float] | None = None
) -> TradePoint | None:
    speedup = 1.0 if row.is_baseline else row.speedup_e2e.value if row.speedup_e2e else None
    if speedup is None:
        return None
    low, high = interval or (None, None)
    return TradePoint(row.label, class_of(row), row.is_baseline, speedup, quality, low, high, False)


def _trade(
    name: str,
    axis: str,
    higher_is_better: bool,
    floor: float | None,
    points: Iterable[TradePoint | None],
) -> Trade:
    known = [point for point in points if point is not None]
    sign = 1.0 if higher_is_better else -1.0
    marked = tuple(
        point._replace(on_frontier=not any(_beats(other, point, sign) for other in known))
        for point in known
    )
    return Trade(name, axis, higher_is_better, floor, marked)


def _beats(one: TradePoint, other: TradePoint, sign: float) -> bool:
    """Return whether one is at least as fast and as good as another, and better in one."""
    faster, finer = one.speedup - other.speedup, sign * (one.quality - other.quality)
    return faster >= 0 and finer >= 0 and (faster > 0 or finer > 0)
