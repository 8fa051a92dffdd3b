"""A gate: has a method become worse from one set of result files, BASE, to another, NEW?

Each method of NEW is held against the method of BASE with the same name and parameters, on the
samples of BASE. A rule fails only where the interval excludes no change (after Holm's adjustment
for all rules and methods), the effect exceeds the rule's tolerance and, for what a clock measured,
the noise floor. A speedup is a ratio to the baseline of its own run, so that its change is a ratio
of ratios from which the machine's drift has cancelled.

What is counted in tokens and forwards repeats exactly where a method is exact, the law greedy and
the machine the same: any difference is then a fact about these samples and needs no interval.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from specbench.compare.cells import Figure
from specbench.compare.change import Change, change
from specbench.compare.comparability import check_allow, check_comparable
from specbench.compare.corpus_change import corpus_change
from specbench.compare.figure import figure, identical
from specbench.compare.gate_rules import IDENTICAL, Rule, parse_rules
from specbench.compare.matching import Match, match, subjects_of
from specbench.compare.registry import METRICS
from specbench.compare.warn import device_warnings, machine_warnings
from specbench.errors import NotComparable, UsageError
from specbench.schema.result import METHOD
from specbench.stats import holm
from specbench.store import ResultSet

PASS = "pass"
FAIL = "fail"
UNSURE = "inconclusive"

ALPHA = 0.05
"""Chance that any rule of a gate fails although nothing changed."""

_SMALL = 1e-9
_NAMED = 5


@dataclass(frozen=True)
class Check:
    """One rule held against one method.

    Attributes:
        label: The method, as NEW names it.
        rule: The rule.
        base: The quantity in BASE.
        new: In NEW.
        change: From BASE to NEW.
        exact: Whether the quantity repeats exactly here, so that every difference is one.
        adjusted_p_value: After Holm's adjustment; None where there is no test.
        verdict: "pass", "fail" or "inconclusive".
        reason: One sentence on the verdict, empty where the numbers say it.
    """

    label: str
    rule: Rule
    base: float
    new: float
    change: Change
    exact: bool
    adjusted_p_value: float | None = None
    verdict: str = UNSURE
    reason: str = ""


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Attributes:
        rules: The rules.
        checks: Each rule for each method that has the quantity.
        missing: One sentence for each thing that BASE has and NEW has not: each fails the gate.
        notes: Sentences that a reader should know.
        banners: One sentence for each difference that the user allowed.
        base_files: Names of BASE's files.
        new_files: Names of NEW's.
        strict: Whether a rule that saw nothing fails too.
    """

    rules: tuple[Rule, ...]
    checks: tuple[Check, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    banners: tuple[str, ...]
    base_files: tuple[str, ...]
    new_files: tuple[str, ...]
    strict: bool = False

    @property
    def failed(self) -> bool:
        """Whether any rule failed, or none could be held where that is asked, or anything lacks."""
        verdicts = {FAIL, UNSURE} if self.strict else {FAIL}
        return bool(self.missing) or any(check.verdict in verdicts for check in self.checks)

    @property
    def blind(self) -> bool:
        """Whether no rule came to a verdict: nothing failed because nothing was seen."""
        return all(check.verdict == UNSURE for check in self.checks)


def gate(
    base: Sequence[ResultSet],
    new: Sequence[ResultSet],
    rules: Iterable[str],
    allow: Iterable[str] = (),
    strict: bool = False,
) -> Gate:
    """Hold NEW against BASE.

    Args:
        base: Files of the state that is known to be good.
        new: Files of the state to judge.
        rules: See `parse_rules`.
        allow: Names of circumstances in which NEW may differ from BASE; see `Ruler`.
        strict: Whether a rule fails where it is inconclusive.

    Raises:
        UsageError: If a rule cannot be read, or no method of BASE has its quantity.
        NotComparable: If the files were measured under different rulers, or a rule holds a time
            of one machine against that of another.
    """
    allowed = check_allow(allow)
    known = {name: about for file in (*base, *new) for name, about in file.metadata.metrics.items()}
    parsed = parse_rules(rules, known)
    for side in (base, new):
        check_comparable(side, frozenset())
    differing, banners = check_comparable([*base, *new], allowed)
    _refuse_foreign_times(parsed, differing)
    subjects = subjects_of(base), subjects_of(new)
    matches, missing, notes = match(*subjects)
    checks: list[Check] = []
    for pair in matches:
        found, lost = _checks(pair, parsed, differing)
        checks += found
        missing += [*_missing_samples(pair), *lost]
        notes += _notes(pair, parsed)
    for name, files in (("BASE", base), ("NEW", new)):
        notes += [
            f"{name}: {doubt}" for doubt in (*device_warnings(files), *machine_warnings(files))
        ]
    _refuse_empty_rules(parsed, checks, missing, matches)
    _refuse_blunt_rules(parsed, checks)
    return Gate(
        rules=tuple(parsed),
        checks=tuple(_judged(checks)),
        missing=tuple(missing),
        notes=tuple(dict.fromkeys(notes)),
        banners=banners,
        base_files=tuple(_name(file) for file in base),
        new_files=tuple(_name(file) for file in new),
        strict=strict,
    )


def _checks(
    pair: Match, rules: Sequence[Rule], differing: Collection[str]
) -> tuple[list[Check], list[str]]:
    """Return the checks of one method, and what NEW lacks for a rule."""
    samples = pair.base.samples.intersection(pair.new.samples, sort=None)
    repeats = not differing and pair.repeats_exactly
    checks, lost = [], []
    for rule in rules:
        corpus = corpus_change(pair.base, pair.new, rule.metric, rule.relative)
        if corpus is not None:
            checks.append(Check(pair.new.label, rule, *corpus, exact=False))
            continue
        if any(record.metric == rule.metric for record in pair.base.pool.records(METHOD)):
            lost.append(_lost(pair, rule))
            continue
        if not len(samples):
            continue
        if rule.metric == IDENTICAL:
            both: tuple[Figure | None, Figure | None]
            both = identical(pair.base, pair.new, samples) or (None, None)
        else:
            both = (
                figure(pair.base, rule.metric, samples),
                figure(pair.new, rule.metric, samples),
            )
        one, other = both
        if one is None:
            continue
        if other is None:
            lost.append(_lost(pair, rule))
            continue
        moved = change(one, other, rule.relative)
        checks.append(
            Check(
                pair.new.label, rule, one.value, other.value, moved, exact=repeats and other.exact
            )
        )
    return checks, lost


def _name(file: ResultSet) -> str:
    """Return a file's name with its folder's: both sides often have the same names."""
    return str(Path(file.path.parent.name) / file.path.name)


def _lost(pair: Match, rule: Rule) -> str:
    return f"{pair.new.label}: {rule.metric} has a value in BASE and none in NEW."


def _judged(checks: Sequence[Check]) -> list[Check]:
    """Adjust the p-values for all tests of the gate and give each check its verdict."""
    tested = [
        None if check.exact or check.change.p_value is None else check.change.p_value
        for check in checks
    ]
    adjusted = iter(holm([p for p in tested if p is not None]))
    judged = []
    for check, p_value in zip(checks, tested, strict=True):
        if p_value is not None:
            check = replace(check, adjusted_p_value=next(adjusted))
        verdict, reason = judge(check)
        judged.append(replace(check, verdict=verdict, reason=reason))
    return judged


def judge(check: Check) -> tuple[str, str]:
    """Return the verdict on one check and the reason where the numbers do not say it.

    "fail" needs an interval that excludes no change, an adjusted p-value below 0.05, an effect
    beyond the tolerance and, for times, beyond the floor. "pass" needs the whole interval, and
    the floor, within the tolerance. Everything between is inconclusive and fails nothing.
    """
    rule, moved = check.rule, check.change
    worse = rule.worse_by(moved.value)
    beyond = worse > rule.tolerance + _SMALL
    if check.exact:
        if not moved.differing and not beyond:
            return PASS, ""
        return (FAIL if beyond else PASS), (
            f"counted exactly: differs in {moved.differing} of {moved.samples} samples"
        )
    timing = rule.metric in METRICS and METRICS[rule.metric].timing
    if moved.interval is None:
        return _without_interval(check, beyond, worse)
    if timing and moved.floor is None:
        return UNSURE, "one repeat gives no noise floor; measure with timing.repeats=3"
    floor = moved.floor or 0.0
    excluded = moved.interval.excludes(0.0) and (check.adjusted_p_value or 0.0) < ALPHA
    if beyond and excluded and worse > floor:
        return FAIL, ""
    if moved.interval.excludes(0.0) and worse < 0 and excluded and -worse > floor:
        return PASS, "better"
    furthest = max(rule.worse_by(end) for end in moved.interval)
    if furthest <= rule.tolerance + _SMALL and floor <= rule.tolerance:
        return PASS, ""
    return UNSURE, _why_unsure(check, floor, furthest)


def amount(value: float, relative: bool) -> str:
    """Return the size of a change as people write it, such as "3%" or "0.5"."""
    if not relative:
        return f"{value:.3g}"
    return f"{100 * value:.0f}%" if value >= 0.995 else f"{100 * value:.2g}%"


def _without_interval(check: Check, beyond: bool, worse: float) -> tuple[str, str]:
    moved = check.change
    if moved.floor is not None:  # one set of pictures: its floor is all that is known of its error
        if not beyond:
            return PASS, "no interval: one set of pictures"
        if worse > moved.floor:
            return FAIL, "no interval: judged by the floor of as many real pictures"
        return UNSURE, "below the floor of as many real pictures; draw more of them"
    if check.rule.metric == "peak_memory_bytes":
        return UNSURE, "resident memory varies by process; measure with timing.processes=3"
    return UNSURE, "one sample has no interval; measure more with task.limit"


def _why_unsure(check: Check, floor: float, furthest: float) -> str:
    rule, moved = check.rule, check.change
    allowed = amount(rule.tolerance, rule.relative)
    if moved.detectable is not None and moved.detectable > rule.tolerance:
        seen = amount(moved.detectable, rule.relative)
        return f"could not have seen a change of {allowed}: detectable is {seen}"
    if floor > rule.tolerance:
        return f"the noise floor of {amount(floor, rule.relative)} exceeds the tolerance"
    return f"the interval reaches {amount(furthest, rule.relative)}, beyond the tolerance"


def _missing_samples(pair: Match) -> list[str]:
    """Return what BASE measured of a method and NEW did not, or only as failures."""
    lost = pair.base.samples.difference(pair.new.samples)
    if not len(lost):
        return []
    rows = pair.new.pool.rows
    failed = rows[rows["error"].notna()]
    broken = set(zip(failed["task"], failed["sample_id"], strict=True))
    names = [
        f"{task}/{sample}{' (failed)' if (task, sample) in broken else ''}" for task, sample in lost
    ]
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    noun = "sample" if len(names) == 1 else "samples"
    return [f"{pair.new.label}: {len(names)} {noun} of BASE are missing in NEW: {shown}."]


def _notes(pair: Match, rules: Sequence[Rule]) -> list[str]:
    notes = []
    more = len(pair.new.samples.difference(pair.base.samples))
    if more:
        notes.append(f"{pair.new.label}: {more} samples of NEW are not in BASE and were left out.")
    if pair.note:
        notes.append(pair.note)
    timed = [r for r in rules if r.metric in METRICS and METRICS[r.metric].timing]
    rows = (pair.base.pool.rows, pair.new.pool.rows)
    if timed and any(len(side[["file", "process"]].drop_duplicates()) < 2 for side in rows):
        notes.append(
            "Times of one process each: what moves a whole process is not in the intervals; "
            "gate times on a fixed machine and with timing.processes=3."
        )
    return notes


def _refuse_foreign_times(rules: Sequence[Rule], differing: Collection[str]) -> None:
    apart = sorted({"device", "threads"} & set(differing))
    raw = [rule for rule in rules if rule.metric in METRICS and METRICS[rule.metric].raw]
    if apart and raw:
        raise NotComparable(
            f"'{raw[0].metric}' of different machines cannot be gated",
            f"BASE and NEW differ in: {', '.join(apart)}",
            "Gate on what does not depend on the machine (nfe, mal, acceptance_rate, identical), "
            "or measure both on one machine.",
        )


def _refuse_empty_rules(
    rules: Sequence[Rule], checks: Sequence[Check], missing: Sequence[str], matches: Sequence[Match]
) -> None:
    held = {check.rule.metric for check in checks}
    for rule in rules:
        silent = not any(f": {rule.metric} has" in sentence for sentence in missing)
        if matches and rule.metric not in held and silent:
            raise UsageError(
                f"The rule '{rule.text}' holds nothing",
                f"no method of BASE has a value of {rule.metric}",
                "Leave the rule out, or measure the metric in BASE.",
            )


def _refuse_blunt_rules(rules: Sequence[Rule], checks: Sequence[Check]) -> None:
    """Refuse a tolerance as large as the values that may not fall: no change would exceed it."""
    for rule in rules:
        values = [check.base for check in checks if check.rule is rule]
        if rule.bad >= 0 or not values or min(values) < 0:
            continue
        if rule.tolerance >= (1 if rule.relative else max(values)):
            percent = "3" if rule.relative else f"{rule.tolerance:g}"
            raise UsageError(
                f"The rule '{rule.text}' lets everything pass",
                f"{rule.metric} is at most {max(values):.3g} in BASE and cannot fall by more",
                f"Write {rule.metric}:{percent}% for a share of BASE's value.",
            )
