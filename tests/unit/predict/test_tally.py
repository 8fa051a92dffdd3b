"""Sums over files: as the rounds themselves give them, and without keeping the rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specbench.errors import ResultsError
from specbench.predict.acceptance import rates_of
from specbench.predict.profile import profiles_of
from specbench.predict.tally import tallies_of
from specbench.store import ResultSet
from tests.unit.compare.factory import (
    a_round,
    draft_rounds,
    failed_row,
    metadata,
    plain_rounds,
    result_set,
    row,
)
from tests.unit.predict.worlds import rounds_of


def file(folder: Path, name: str, seed: int) -> ResultSet:
    proposed, accepted = rounds_of(seed, count=60)
    drafts = [a_round(int(a) + 1, int(p), int(a)) for p, a in zip(proposed, accepted, strict=True)]
    rows = [
        row("baseline", "s", 0, plain_rounds(8)),
        row("method", "s", 0, [a_round(1), *drafts[:30]]),
        failed_row("method", "u", 0),
        row("method", "v", 0, [a_round(1), *drafts[30:]]),
        row("method", "w", 0, draft_rounds([4, 4]), error="boom"),
    ]
    return result_set(folder, rows, metadata(), name)


def test_a_tally_is_the_sum_over_the_rounds(tmp_path: Path) -> None:
    files = [file(tmp_path, f"f{seed}", seed) for seed in range(3)]
    tally = tallies_of(files)["method"]
    drawn = [rounds_of(seed, count=60) for seed in range(3)]
    proposed = np.concatenate([each[0] for each in drawn])
    accepted = np.concatenate([each[1] for each in drawn])
    assert tally.rounds == 180
    assert tally.mean("emitted") == pytest.approx((accepted + 1).mean())
    assert tally.mean("draft_tokens") == pytest.approx(proposed.mean())
    assert rates_of(*tally.lengths()) == rates_of(proposed, accepted)
    assert tally.totals["target_forwards"] == 3 * 62


def test_a_field_that_is_not_recorded_has_no_mean(tmp_path: Path) -> None:
    rows = [
        row("method", "s", 0, [a_round(1), a_round(3, 4, 2, nodes=None)]),
        row("method", "t", 0, [a_round(1), a_round(3, 4, 2)]),
    ]
    some = result_set(tmp_path, rows, metadata(baseline=None))
    tally = tallies_of([some])
    assert tally["method"].mean("nodes") == 4.0
    assert tally["baseline"].mean("nodes") == 0.0 and tally["baseline"].rounds == 0


def test_rounds_are_not_kept(tmp_path: Path) -> None:
    files = [file(tmp_path, f"f{seed}", seed) for seed in range(2)]
    profiles_of(files)
    kept = {"rounds", "rows", "table", "ledger", "outputs"}
    assert all(not kept & set(vars(each)) for each in files)


@pytest.mark.parametrize("changes", [{"emitted": -1}, {"proposed": 10**6}, {"target_ns": -5}])
def test_an_impossible_round_is_a_damaged_file(tmp_path: Path, changes: dict[str, int]) -> None:
    values = {**a_round(3, 4, 2), **changes}
    rows = [row("method", "s", 0, [a_round(1), values])]
    with pytest.raises(ResultsError, match="damaged"):
        tallies_of([result_set(tmp_path, rows, metadata(baseline=None))])


def test_more_accepted_than_proposed_is_no_rate_above_one(tmp_path: Path) -> None:
    rows = [row("method", "s", 0, [a_round(1), a_round(3, 2, 9), a_round(3, 4, 2)])]
    (profile,) = profiles_of([result_set(tmp_path, rows, metadata(baseline=None))]).profiles
    assert max(profile.acceptance.accepted) <= 1.0
