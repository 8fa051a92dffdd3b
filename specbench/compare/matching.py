"""Which method of one set of files is which of another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from specbench.compare.pool import pools_of
from specbench.compare.subject import Subject
from specbench.store import ResultSet


@dataclass(frozen=True)
class Match:
    """A method in both sets.

    Attributes:
        base: As BASE measured it.
        new: As NEW measured it.
        note: What differs between the two although they are taken for one; empty if nothing.
    """

    base: Subject
    new: Subject
    note: str = ""

    @property
    def repeats_exactly(self) -> bool:
        """Whether counts of tokens and forwards repeat: no draw and no loss is involved."""
        greedy = all(
            file.metadata.temperature == 0 for side in (self.base, self.new) for file in side.files
        )
        return greedy and self.new.info.exactness in ("exact", "greedy")


def subjects_of(results: Sequence[ResultSet]) -> list[Subject]:
    """Return the methods of some comparable files, in first-seen order."""
    by_path = {result.path: result for result in results}
    return [
        Subject(pool.label, pool, tuple(by_path[path] for path in pool.paths))
        for pool in pools_of(results, frozenset())
    ]


def match(
    base: Sequence[Subject], new: Sequence[Subject]
) -> tuple[list[Match], list[str], list[str]]:
    """Match the methods of two sets by name and parameters.

    Where the parts of a method changed but not its parameters, or it has parameters that BASE
    did not know, and only one method of NEW can be meant, it is that one with a note: the change
    is what a gate is to judge.

    Returns:
        The matches, a sentence for each method that NEW lacks, and a sentence for each that BASE
        lacks.
    """
    matches: list[Match] = []
    left = list(new)
    missing = []
    for keys in (_whole, _parameters):
        for subject in base:
            if any(match.base is subject for match in matches):
                continue
            alike = [other for other in left if keys(other) == keys(subject)]
            if len(alike) == 1:
                note = "" if keys is _whole else f"{subject.label}: its parts differ from BASE's."
                matches.append(Match(subject, alike[0], note))
                left.remove(alike[0])
    for subject in base:
        if any(match.base is subject for match in matches):
            continue
        grown = [other for other in left if _grew(subject, other)]
        if len(grown) == 1:
            note = f"{subject.label}: it has parameters that BASE did not know."
            matches.append(Match(subject, grown[0], note))
            left.remove(grown[0])
        else:
            missing.append(f"{subject.label}: BASE has this method and NEW has not.")
    matches.sort(key=lambda match: base.index(match.base))
    notes = [f"{subject.label}: new, with nothing in BASE to hold it against." for subject in left]
    return matches, missing, notes


def _whole(subject: Subject) -> str:
    return json.dumps(subject.identity, sort_keys=True, default=str)


def _parameters(subject: Subject) -> str:
    return json.dumps(subject.parameters, sort_keys=True, default=str)


def _grew(base: Subject, new: Subject) -> bool:
    """Return whether NEW's method is BASE's with further parameters."""
    one, other = base.identity, new.identity
    old, now = one.get("parameters") or {}, other.get("parameters") or {}
    return one["name"] == other["name"] and all(now.get(key) == old[key] for key in old)
