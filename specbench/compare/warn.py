"""Reasons to read a comparison with care, each with its advice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from specbench.compare.comparison import INCONCLUSIVE, ComparisonRow, Speedup
from specbench.compare.pool import Pool, pair
from specbench.schema.families import UPPER_BOUND
from specbench.schema.result import METHOD
from specbench.store import ResultSet

FEW_SAMPLES = 10
"""Below this number of samples an interval is said to rest on few."""

LENGTH_TOLERANCE = 0.02
"""Relative difference in new tokens that a ratio of total times should not hide."""

LARGEST_DETECTABLE = 10.0
"""Detectable speedups above this are not told apart: next to nothing could have been found."""


class _Remark(NamedTuple):
    """What there is to say of one row, so that rows of which the like is said share a line.

    Attributes:
        alone: The sentence where it is said of one row, or of several in the same words.
        shared: The sentence for several rows, with {rows} where they are listed; empty where the
            words are always the same.
        detail: What stands behind a row's name in that list.
    """

    alone: str
    shared: str = ""
    detail: str = ""


def set_warnings(
    pools: Sequence[Pool], rows: Sequence[ComparisonRow], imported: bool = False
) -> list[str]:
    """Return warnings about the files and about how the methods' measurements overlap.

    Args:
        pools: The methods' measurements.
        rows: The rows.
        imported: Whether they come from published files.
    """
    warnings = []
    alone = [pool.label for pool in pools if pool.baseline is None]
    if alone:
        advice = "import it with --baseline FILE" if imported else "run it with baseline=ar"
        warnings.append(
            f"{', '.join(alone)}: measured without a baseline, so no speedup; {advice}."
        )
    for pool in pools:
        if pool.baseline is None:
            continue
        unpaired = pair(pool).unpaired
        if unpaired:
            warnings.append(
                f"{pool.label}: {_count(unpaired, 'measurement')} without a partner in the other "
                "arm left out; resume the run."
            )
    for pool in pools:
        if pool.errors and not pool.arm(METHOD).sample_count:
            first, *others = pool.errors
            more = f" (and {_count(len(others), 'other error')})" if others else ""
            warnings.append(f"{pool.label}: every measurement failed: {first}{more}.")
    for section in dict.fromkeys(row.section for row in rows):
        counts = {row.samples for row in rows if row.section == section and not row.is_baseline}
        if len(counts) > 1:
            warnings.append(
                f"{section}: the methods were measured on different numbers of samples "
                f"({min(counts)} to {max(counts)}); compare each with the baseline only."
            )
    return warnings


def device_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return what a GPU was found to do beside its work, which makes times doubtful.

    One line for each finding, with the methods whose runs it disturbed.
    """
    found: dict[str, list[str]] = {}
    for result in results:
        state = result.metadata.provenance.get("device_state")
        doubts = state.get("warnings") if isinstance(state, Mapping) else None
        for doubt in doubts if isinstance(doubts, list) else ():
            found.setdefault(str(doubt), []).append(result.metadata.method.name)
    return [
        f"{', '.join(dict.fromkeys(names))}: doubtful times, the device was not at rest: {doubt}."
        for doubt, names in found.items()
    ]


def machine_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return one line of the runs that other work on the processors disturbed, with its size."""
    found: dict[str, list[str]] = {}
    for result in results:
        for process in result.metadata.provenance.get("processes") or ():
            machine = process.get("machine") if isinstance(process, Mapping) else None
            during = machine.get("during") if isinstance(machine, Mapping) else None
            said = during.get("warnings") if isinstance(during, Mapping) else None
            if isinstance(said, list) and said:
                name = result.metadata.method.name
                found.setdefault(name, []).append("; ".join(map(str, said)))
    if not found:
        return []
    runs = ", ".join(f"{name} ({max(said)})" for name, said in found.items())
    return [f"doubtful times, the machine was not at rest while it measured: {runs}."]


def bound_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return a warning about instruments whose speedup is a ceiling and no method's."""
    names = [
        result.metadata.method.name
        for result in results
        if result.metadata.asked.family == UPPER_BOUND
    ]
    if not names:
        return []
    return [
        f"{', '.join(dict.fromkeys(names))}: an upper bound and no method; the drafts repeat a "
        "plain decoding that was made before the clock started."
    ]


def answer_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return warnings about runs with answers that repeat one token or were cut and score 0."""
    found: dict[str, list[str]] = {}
    more = "so the speedup says little; check the checkpoint, its chat template and model.dtype."
    room = "and score 0, right or not: give more room with max_new_tokens."
    for result in results:
        answers = result.metadata.provenance.get("answers")
        if not isinstance(answers, Mapping):
            continue
        counts = [answers.get(name, 0) for name in ("repeated", "cut", "samples")]
        if not all(isinstance(count, int) for count in counts):
            continue
        repeated, cut, samples = counts
        of_all = f"of {_count(samples, 'answer')}"
        said = []
        if repeated and 2 * repeated >= samples:
            said.append(f"{repeated} {of_all} repeat one token in every arm, {more}")
        if cut:
            said.append(f"{cut} {of_all} were cut {room}")
        for about in said:
            found.setdefault(about, []).append(result.metadata.method.name)
    return [f"{', '.join(dict.fromkeys(names))}: {about}" for about, names in found.items()]


def code_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return which files hold rows that different states of the program measured."""
    warnings = []
    for result in results:
        notes = result.metadata.provenance.get("processes")
        states = {
            str(note["software"].get("sources"))
            for note in (notes if isinstance(notes, list) else ())
            if isinstance(note, Mapping) and isinstance(note.get("software"), Mapping)
        }
        if len(states) > 1:
            warnings.append(
                f"{result.path.name}: {len(states)} states of specbench's code measured its rows; "
                "its provenance names each. Measure with --fresh to have one."
            )
    return warnings


def source_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return what imported files do not record, and what of them was read otherwise.

    One line for all sentences that are said of the same methods.
    """
    found: dict[str, dict[str, None]] = {}
    for kind in ("unknown", "odd"):
        for result in results:
            for sentence in result.metadata.source.get(kind, ()):
                found.setdefault(str(sentence), {})[result.metadata.method.name] = None
    said: dict[str, list[str]] = {}
    for sentence, names in found.items():
        said.setdefault(", ".join(names), []).append(sentence)
    return [f"{names} (source): {' '.join(sentences)}" for names, sentences in said.items()]


def row_warnings(rows: Sequence[ComparisonRow], imported: bool = False) -> list[str]:
    """Return warnings about single rows; those of one kind share a line.

    Args:
        rows: The rows.
        imported: Whether they come from published files, which no advice can measure again.
    """
    found: dict[str, list[tuple[ComparisonRow, _Remark]]] = {}
    for row in rows:
        if row.is_baseline:
            continue
        for remark in _of_row(row, imported):
            found.setdefault(remark.shared or remark.alone, []).append((row, remark))
    sections = {row.section for row in rows}
    return [_line(said, sections) for said in found.values()]


def _line(said: Sequence[tuple[ComparisonRow, _Remark]], sections: Collection[str]) -> str:
    """Return one line for all rows of which the like is said."""
    groups: dict[_Remark, list[ComparisonRow]] = {}
    for row, remark in said:
        groups.setdefault(remark, []).append(row)
    if len(groups) == 1:
        (remark, about), *_ = groups.items()
        names = _names(about, sections)
        listed = any(" on " in name for name in names)
        return f"{('; ' if listed else ', ').join(names)}: {remark.alone}"
    names = [
        f"{name} {remark.detail}"
        for remark, about in groups.items()
        for name in _names(about, sections)
    ]
    return said[0][1].shared.format(rows=", ".join(names))


def _of_row(row: ComparisonRow, imported: bool) -> list[_Remark]:
    remarks = []
    if row.failed and row.samples:
        failed = _count(row.failed, "sample")
        remarks.append(
            _Remark(
                f"{failed} with failed measurements, left out in both arms; the result file's "
                "error column says why.",
                "failed measurements of {rows}, left out in both arms; the result file's error "
                "column says why.",
                f"({failed})",
            )
        )
    speedup = row.speedup_e2e
    if speedup is not None:
        if speedup.interval is None:
            more = "" if imported else "; measure more with task.limit"
            remarks.append(_Remark(f"one sample has no interval{more}."))
        elif row.samples < FEW_SAMPLES:
            more = "" if imported else "; raise task.limit for narrower intervals"
            remarks.append(
                _Remark(
                    f"only {_count(row.samples, 'sample')}{more}.",
                    f"few samples of {{rows}}{more}.",
                    f"({row.samples})",
                )
            )
        if speedup.noise_floor is None:
            advice = "" if imported else "; measure with timing.repeats=3"
            remarks.append(_Remark(f"one repeat gives no noise floor, so no verdict{advice}."))
        elif speedup.verdict == INCONCLUSIVE:
            remarks.append(_inconclusive(speedup))
    if row.tokens_ratio is not None and abs(row.tokens_ratio - 1) > LENGTH_TOLERANCE:
        more = f"{row.tokens_ratio - 1:+.0%}"
        remarks.append(
            _Remark(
                f"it wrote {more} tokens against the baseline, which the ratio of times includes; "
                "read tokens/s beside it.",
                "other numbers of tokens than the baseline's: {rows}; the ratio of times includes "
                "that, read tokens/s beside it.",
                more,
            )
        )
    fidelity = row.quantities["fidelity"]
    if fidelity is not None and row.method.exactness != "lossy":
        wrong = fidelity.wrong + fidelity.diverged
        if wrong:
            claim = f"claims to be {row.method.exactness}"
            remarks.append(
                _Remark(
                    f"{wrong} of {fidelity.total} outputs differ from the baseline's by more than "
                    f"a numeric tie, and the method {claim}.",
                    "outputs that differ from the baseline's by more than a numeric tie: {rows}.",
                    f"({wrong} of {fidelity.total}, and {claim})",
                )
            )
    if row.method.exactness == "lossy" and not (row.score or row.quality or row.corpus):
        remarks.append(_Remark("a lossy method without a score: its cost in quality is not known."))
    for name, figure in row.corpus.items():
        below = figure.floor is not None and abs(figure.difference or 0.0) <= figure.floor
        if figure.difference is not None and below:
            remarks.append(
                _Remark(
                    f"its {name} differs from the baseline's by less than the floor of "
                    f"{figure.floor:.3g}, the value of as many real pictures (n={figure.n}); more "
                    "samples lower it."
                )
            )
    return remarks


def _inconclusive(speedup: Speedup) -> _Remark:
    """Return what a run that could not tell could have told, and what would help."""
    assert speedup.noise_floor is not None
    below = _below(speedup.value, speedup.noise_floor)
    what = "the speedup is below the noise floor" if below else "no verdict"
    many = "speedups below the noise floor" if below else "no verdict"
    help_ = "more repeats, processes or a quieter machine" if below else "more samples or repeats"
    shared = f"{many}: {{rows}}; in brackets what the run could have told from 1; measure {help_}."
    if speedup.detectable is None or speedup.detectable > LARGEST_DETECTABLE:
        over = f"(over {LARGEST_DETECTABLE:.0f}x)"
        return _Remark(f"{what}; measure more samples or repeats.", shared, over)
    able = f"{speedup.detectable:.3g}x"
    told = f"{what}: this run could have told {able} from 1"
    if speedup.samples_needed is not None and not below:
        needed = f"{_rounded(speedup.samples_needed)} samples"
        return _Remark(
            f"{told}; for {speedup.value:.3g}x measure about {needed}.",
            shared,
            f"({able}, or {speedup.value:.3g}x with {needed})",
        )
    return _Remark(f"{told}; measure {help_}.", shared, f"({able})")


def _rounded(number: int) -> int:
    """Return two significant digits, rounded up: the number is an estimate."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step


def _below(value: float, floor: float) -> bool:
    return max(value, 1 / value) <= floor


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _names(about: Sequence[ComparisonRow], sections: Collection[str]) -> list[str]:
    """Return the rows' labels, with the sections that are meant where not all are."""
    places: dict[str, list[str]] = {}
    for row in about:
        places.setdefault(row.label, []).append(row.section)
    return [
        label if len(named) == len(sections) else f"{label} on {', '.join(named)}"
        for label, named in places.items()
    ]
