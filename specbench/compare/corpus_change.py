"""How a metric of whole sets of pictures changed: few sets, and often a single one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from specbench.compare.change import Change
from specbench.compare.quality import CorpusRecord
from specbench.compare.subject import Subject
from specbench.schema.result import METHOD
from specbench.stats import CONFIDENCE, POWER, Interval, student_quantile, student_tail

_MANY = 1000.0  # degrees of freedom of an error that comes with the value


def corpus_change(
    base: Subject, new: Subject, metric: str, relative: bool
) -> tuple[float, float, Change] | None:
    """Return both values of such a metric and the change; None where BASE has none of it.

    Several sets of each side (one a file, with seeds of their own) give Welch's interval; one set
    gives an interval where the metric knows its own error. The floor is the greater of the two
    sides': the value of as many real pictures.

    Args:
        base: The method in BASE.
        new: In NEW.
        metric: Id of the metric.
        relative: Whether to return the change as a share of BASE's value.
    """
    one, other = _records(base, metric), _records(new, metric)
    if not one or not other or len({record.task for record in (*one, *other)}) > 1:
        return None
    first, second = _value(one), _value(other)
    unit = abs(first) if relative and first else 1.0
    errors = [_error(records) for records in (one, other)]
    floors = [
        float(record.values["floor"])
        for record in (*one, *other)
        if record.values.get("floor") is not None
    ]
    point = (second - first) / unit
    interval = p_value = detectable = None
    if all(error is not None for error in errors):
        variances = [(error or (0.0, 1.0))[0] ** 2 for error in errors]
        freedom = [(error or (0.0, 1.0))[1] for error in errors]
        total = sum(variances)
        degrees = (
            total**2 / sum(v**2 / d for v, d in zip(variances, freedom, strict=True))
            if total
            else min(freedom)
        )
        spread = math.sqrt(total) / unit
        critical = student_quantile(0.5 + CONFIDENCE / 2, degrees)
        interval = Interval(point - critical * spread, point + critical * spread)
        p_value = student_tail(point / spread, degrees) if spread else float(point == 0)
        detectable = (critical + student_quantile(POWER, degrees)) * spread
    return (
        first,
        second,
        Change(
            value=point,
            relative=relative,
            interval=interval,
            p_value=p_value,
            detectable=detectable,
            floor=max(floors) / unit if floors else None,
            samples=min(int(record.values["n"]) for record in (*one, *other)),
            differing=0,
        ),
    )


def corpus_value(subject: Subject, metric: str) -> tuple[float, Interval | None, int] | None:
    """Return such a metric of one method, its interval and the pictures of a set."""
    records = _records(subject, metric)
    if not records or len({record.task for record in records}) > 1:
        return None
    value, error, interval = _value(records), _error(records), None
    if error is not None:
        reach = student_quantile(0.5 + CONFIDENCE / 2, error[1]) * error[0]
        interval = Interval(value - reach, value + reach)
    return value, interval, min(int(record.values["n"]) for record in records)


def _records(subject: Subject, metric: str) -> list[CorpusRecord]:
    return [record for record in subject.pool.records(METHOD) if record.metric == metric]


def _value(records: Sequence[CorpusRecord]) -> float:
    return float(np.mean([float(record.values["value"]) for record in records]))


def _error(records: Sequence[CorpusRecord]) -> tuple[float, float] | None:
    """Return the standard error of the mean of some sets and its degrees of freedom."""
    if len(records) > 1:
        values = [float(record.values["value"]) for record in records]
        return float(np.std(values, ddof=1)) / math.sqrt(len(values)), float(len(values) - 1)
    error = records[0].values.get("error")
    return None if error is None else (float(error), _MANY)
