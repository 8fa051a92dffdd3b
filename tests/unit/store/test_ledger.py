"""Sums and counts over rounds are those of a loop over every round, whatever is missing."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from specbench.schema.result import ROUND_TYPE
from specbench.store.ledger import LONGEST_PATH, ledger_of

FIELDS = [field.name for field in ROUND_TYPE if field.name != "further"]


def rounds_of(generator, missing, longest):
    """One measurement's rounds: null, none, or a few of several turns."""
    kind = generator.random()
    if kind < 0.1:
        return None
    rounds = []
    turn = 0
    for _ in range(0 if kind < 0.2 else generator.integers(1, 12)):
        turn += int(generator.random() < 0.3)
        proposed = int(generator.integers(0, longest))
        values = dict.fromkeys(FIELDS, 0) | {
            "turn": turn,
            "proposed": proposed,
            "accepted": int(generator.integers(0, proposed + 2)),
            "emitted": int(generator.integers(0, 9)),
            "nodes": int(generator.integers(0, 30)),
            "target_forwards": int(generator.integers(0, 2**31)),
            "draft_forwards": int(generator.integers(0, 2**31)),
            "draft_ns": int(generator.integers(0, 10**13)),
        }
        rounds.append(
            {
                name: None if name != "turn" and generator.random() < missing else value
                for name, value in values.items()
            }
        )
    return rounds


def total(rounds, name):
    """Sum of a field; NaN where one is not known."""
    values = [entry[name] for entry in rounds]
    return math.nan if None in values else float(sum(values))


def plainly(rounds):
    """Some of a measurement's sums by a loop, and its verification rounds."""
    later, first = [], []
    for place, entry in enumerate(rounds or ()):
        new = place == 0 or entry["turn"] != rounds[place - 1]["turn"]
        (first if new else later).append(entry)
    drafts = [entry for entry in later if entry["proposed"]]
    kept_known = all(None not in (entry["emitted"], entry["proposed"]) for entry in later)
    forwards = [total(first, f"{model}_forwards") for model in ("target", "draft")]
    tested = [
        None
        if None in (entry["accepted"], entry["proposed"])
        else entry["accepted"] + (entry["accepted"] < entry["proposed"])
        for entry in later
    ]
    sums = {
        "turns": len(first),
        "verification_rounds": len(later),
        "verification_emitted": total(later, "emitted"),
        "verification_nodes": total(later, "nodes"),
        "verification_draft_ns": total(later, "draft_ns"),
        "verification_tested": math.nan if None in tested else sum(tested),
        "drafting_rounds": math.nan if math.isnan(total(later, "proposed")) else len(drafts),
        "drafting_emitted": total(drafts, "emitted") if kept_known else math.nan,
        "prefill_forwards": sum(forwards),
        "prefill_emitted": total(first, "emitted"),
    }
    return (dict.fromkeys(sums, math.nan) if rounds is None else sums), later


@pytest.mark.parametrize("longest", [1, 6, 300, LONGEST_PATH])
@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_a_ledger_is_what_a_loop_counts(missing, longest):
    generator = np.random.default_rng([longest, round(100 * missing)])
    for _ in range(20):
        measured = [rounds_of(generator, missing, longest) for _ in range(25)]
        found = ledger_of(pa.chunked_array([pa.array(measured, pa.list_(ROUND_TYPE))]))
        wanted = [plainly(rounds) for rounds in measured]
        for name in wanted[0][0]:
            values = [sums[name] for sums, _ in wanted]
            np.testing.assert_array_equal(found.sums[name], values, err_msg=name)
        chosen = np.flatnonzero(generator.random(25) < 0.6)
        assert_counts(found.drafts.count(chosen), [wanted[place][1] for place in chosen])


def assert_counts(found, measured):
    known = [e for rounds in measured for e in rounds if e["accepted"] is not None]
    both = [(e["accepted"], e["proposed"]) for e in known if e["proposed"] is not None]
    assert counted(found.accepted) == tally(e["accepted"] for e in known)
    for place, rounds in enumerate(found.tested[:40]):
        assert rounds == sum(p > place and a >= place for a, p in both)
    for place, rounds in enumerate(found.kept[:40]):
        assert rounds == sum(p > place and a > place for a, p in both)
    assert len(found.tested) == max((min(a + 1, p) for a, p in both), default=0)
    assert len(found.kept) == max((min(a, p) for a, p in both), default=0)


def counted(array):
    return {value: int(count) for value, count in enumerate(array) if count}


def tally(values):
    found = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found


@pytest.mark.parametrize(
    ("name", "value"), [("accepted", -1), ("proposed", LONGEST_PATH + 1), ("host_ns", 10**15)]
)
def test_what_cannot_be_is_refused(name, value):
    entry = dict.fromkeys(FIELDS, 0) | {name: value}
    with pytest.raises(ValueError, match=f"'{name}' is {value}"):
        ledger_of(pa.chunked_array([pa.array([[entry]], pa.list_(ROUND_TYPE))]))
