"""What is read of files that record less than specbench does."""

from __future__ import annotations

import pytest

from specbench.compare import compare
from specbench.schema.result import METHOD
from tests.unit.compare.factory import a_round, metadata, result_set, row


def lengths(folder, first, later):
    """MAL of two samples with 13 tokens in 5 steps, whose rounds emitted this."""
    rounds = [a_round(1)] + [a_round(2, 4, 1) for _ in range(5)]
    rows = [row(METHOD, name, 0, rounds, new_tokens=13) for name in "ab"]
    recorded = [{**rounds[0], "emitted": first}, *({**r, "emitted": later} for r in rounds[1:])]
    rows = [{**entry, "rounds": recorded} for entry in rows]
    found = compare([result_set(folder, rows, metadata(baseline=None))])
    return found.rows[0].quantities["mal"]


@pytest.mark.parametrize(
    ("first", "later", "wanted"),
    [
        pytest.param(1, None, 12 / 5, id="steps without their tokens: what the prefill left"),
        pytest.param(None, None, None, id="nothing known"),
        pytest.param(20, None, None, id="more in the prefill than there are tokens"),
        pytest.param(1, 2, 2.0, id="what a round records counts, whatever the total"),
    ],
)
def test_tokens_of_steps(tmp_path, first, later, wanted):
    assert lengths(tmp_path, first, later) == (None if wanted is None else pytest.approx(wanted))
