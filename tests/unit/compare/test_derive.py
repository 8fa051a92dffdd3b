"""Every derived quantity, worked out by hand on a ledger of a few rounds."""

from __future__ import annotations

import pandas as pd
import pytest

from specbench.compare import derive
from specbench.compare.measurements import Measurements
from specbench.compare.metric import ARM
from specbench.compare.registry import METRICS, PUBLISHED
from specbench.compare.table import Table
from specbench.errors import ResultsError
from specbench.schema.result import METHOD
from tests.unit.compare.factory import (
    MILLISECOND,
    a_round,
    draft_rounds,
    metadata,
    plain_rounds,
    result_set,
    row,
    slowed,
)


def measured(folder, *rows) -> Measurements:
    folder.mkdir(exist_ok=True)
    result = result_set(folder, list(rows), metadata())
    return Measurements(Table.of(result.rows), result.ledger.drafts)


def value(metric: str, arm: Measurements):
    return METRICS[metric].value(arm)


def summary_of(arm: Measurements) -> dict[str, object]:
    return {metric.id: metric.value(arm) for metric in PUBLISHED if metric.place == ARM}


@pytest.fixture
def ledger(tmp_path) -> Measurements:
    """Two requests; the second has two turns. Draft length 4.

    Request a: prefill, then accepted 4, 0. Request b: prefill, accepted 2; prefill, accepted 1,
    where the last round's bonus was cut off.
    """
    cut = a_round(1, 4, 1, turn=1)
    turns = [a_round(1), a_round(3, 4, 2), a_round(1, turn=1), cut]
    return measured(tmp_path, row(METHOD, "a", 0, draft_rounds([4, 0])), row(METHOD, "b", 0, turns))


def test_emitted_sums_to_the_new_tokens(ledger):
    """Three turns begin with one token of their prefill, which is no verification round."""
    assert ledger.rows["verification_emitted"].sum() + 3 == ledger.rows["new_tokens"].sum() == 13


def test_mean_acceptance_length_leaves_out_each_turns_prefill(ledger):
    assert value("mal", ledger) == pytest.approx((5 + 1 + 3 + 1) / 4)


def test_pooled_and_per_request_lengths_are_different_numbers(tmp_path):
    uneven = measured(
        tmp_path,
        row(METHOD, "a", 0, draft_rounds([4])),
        row(METHOD, "b", 0, draft_rounds([0, 0, 0])),
    )
    assert value("mal", uneven) == pytest.approx((5 + 1 + 1 + 1) / 4)
    assert value("mal_request", uneven) == pytest.approx((5 + 1) / 2)


def test_accepted_per_round_leaves_out_the_bonus_and_the_cut(ledger):
    assert value("accepted_per_round", ledger) == pytest.approx((4 + 0 + 2 + 1) / 4)


def test_acceptance_by_position_is_conditional_on_the_earlier_ones(ledger):
    """Accepted 4, 0, 2, 1 of 4: position 1 in 3 of 4, position 2 in 2 of those 3, and so on."""
    assert value("acceptance_by_position", ledger) == pytest.approx((3 / 4, 2 / 3, 1 / 2, 1 / 1))


def test_a_position_that_was_not_proposed_is_not_tested(tmp_path):
    rounds = [a_round(1), a_round(2, 1, 1), a_round(1), a_round(3, 3, 2)]
    short = measured(tmp_path, row(METHOD, "a", 0, rounds))
    assert value("acceptance_by_position", short) == pytest.approx((1.0, 1.0, 0.0))
    assert value("acceptance_rate", short) == pytest.approx(3 / 4)


def test_the_acceptance_rate_pools_the_tested_positions(ledger):
    """Tested: 4, 1, 3, 2 tokens; accepted 7 of 10."""
    assert value("acceptance_rate", ledger) == pytest.approx(7 / 10)


def test_the_acceptance_rate_recovers_independent_acceptance(tmp_path):
    """With each token accepted at rate 0.7 on its own, the estimate is 0.7 within 3 errors."""
    import numpy as np

    generator = np.random.default_rng(0)
    accepted = [int((generator.random(4) < 0.7).cumprod().sum()) for _ in range(4000)]
    many = measured(tmp_path, row(METHOD, "a", 0, draft_rounds(accepted)))
    assert value("acceptance_rate", many) == pytest.approx(0.7, abs=0.013)
    expected = (1 - 0.7**5) / (1 - 0.7)
    assert value("mal", many) == pytest.approx(expected, abs=0.08)


def test_the_histogram_counts_rounds(ledger):
    assert value("acceptance_histogram", ledger) == (1, 1, 1, 0, 1)


def test_draft_efficiency_counts_every_node_of_a_tree(tmp_path):
    tree = [a_round(1), a_round(3, 4, 2, nodes=20)]
    assert value("draft_efficiency", measured(tmp_path, row(METHOD, "a", 0, tree))) == 2 / 20


def test_forwards_per_sample_and_tokens_per_forward(ledger):
    assert value("nfe", ledger) == pytest.approx(7 / 2)
    assert value("step_compression", ledger) == pytest.approx(13 / 7)


def test_rates_and_times(tmp_path):
    rounds = draft_rounds([4, 0])
    one = measured(tmp_path, slowed(row(METHOD, "a", 0, rounds), 2))
    assert value("tokens_per_second", one) == pytest.approx(7 / 0.034)
    assert value("tokens_per_second_decode", one) == pytest.approx(6 / 0.024)
    assert value("ttft_ms", one) == pytest.approx(10.0)
    assert value("round_time", one)[:3] == pytest.approx((1.0, 4.0, 1.0))
    assert value("round_time", one).sampling is None
    assert value("host_share", one) == pytest.approx(3 / 34)
    assert value("peak_memory_bytes", one) == 500 * 2**20
    assert value("mean_new_tokens", one) == 7


def test_sampling_on_a_device_is_a_time_of_its_own(tmp_path):
    """It costs as the models do: a prediction that left it out would promise too much."""
    plain = [a_round(1, sampling_ns=MILLISECOND) for _ in range(5)]
    fast = [a_round(1), a_round(4, 3, 3, sampling_ns=5 * MILLISECOND)]
    baseline = measured(tmp_path / "plain", row(METHOD, "a", 0, plain))
    method = measured(tmp_path / "fast", row(METHOD, "a", 0, fast))
    assert value("round_time", method) == pytest.approx((1.0, 4.0, 1.0, 5.0))
    assert value("host_share", baseline) == pytest.approx(1 / 6)
    assert derive.predicted_speedup(method, baseline) == pytest.approx((4 + 1) / ((1 + 4 + 5) / 4))


def test_device_memory_goes_before_resident_memory(tmp_path):
    values = row(METHOD, "a", 0, plain_rounds(2), peak_device_bytes=7)
    assert value("peak_memory_bytes", measured(tmp_path, values)) == 7


def test_plain_decoding_emits_one_token_a_round(tmp_path):
    plain = measured(tmp_path, row(METHOD, "a", 0, plain_rounds(9)))
    summary = summary_of(plain)
    assert (summary["mal"], summary["step_compression"], summary["nfe"]) == (1.0, 1.0, 9.0)
    assert summary["acceptance_rate"] is None
    assert summary["draft_efficiency"] is None
    assert summary["acceptance_by_position"] == ()


def test_a_single_token_has_no_verification_round(tmp_path):
    summary = summary_of(measured(tmp_path, row(METHOD, "a", 0, [a_round(1)])))
    assert summary["mal"] is summary["mal_request"] is summary["round_time"] is None
    assert summary["tokens_per_second_decode"] is None
    assert summary["tokens_per_second"] == pytest.approx(200)


def test_nothing_measured_derives_nothing(tmp_path):
    empty = measured(tmp_path, row(METHOD, "a", 0, [a_round(1)])).take(pd.Index([], dtype=int))
    summary = summary_of(empty)
    assert summary["mal"] is summary["nfe"] is summary["ttft_ms"] is summary["fidelity"] is None


def test_prediction_from_acceptance_and_cost(tmp_path):
    """2.5 tokens for 5 ms against one for 4 ms: twice as fast; 1 ms of host work a round."""
    method = measured(tmp_path, row(METHOD, "a", 0, draft_rounds([3, 0])))
    plain = measured(tmp_path, row(METHOD, "a", 0, plain_rounds(6)))
    predicted = derive.predicted_speedup(method, plain)
    assert predicted == pytest.approx(2.5 / 5 * 4)
    assert derive.overhead(predicted, 1.5) == pytest.approx(0.25)
    assert derive.overhead(predicted, None) is None


def test_a_sample_counts_with_its_worst_fidelity(tmp_path):
    def judged(sample, repeat, fidelity):
        return row(METHOD, sample, repeat, plain_rounds(2), fidelity=fidelity)

    counts = value(
        "fidelity",
        measured(
            tmp_path,
            judged("a", 0, "identical"),
            judged("a", 1, "identical"),
            judged("b", 0, "identical"),
            judged("b", 1, "tie"),
            judged("c", 0, "diverged"),
            judged("c", 1, "tie"),
            judged("d", 0, "wrong"),
            judged("e", 0, None),
        ),
    )
    assert counts == (1, 1, 1, 1)
    assert counts.total == 4


def test_what_follows_the_first_token_is_undefined_where_tokens_settle_at_the_end(tmp_path):
    late = [a_round(1, target_forwards=30), a_round(29, target_forwards=0)]
    early = [a_round(1, target_forwards=1), a_round(29, target_forwards=30)]
    for rounds, defined in ((late, False), (early, True)):
        found = measured(tmp_path, row(METHOD, "s0", 0, rounds))
        values = (value("mal", found), value("mal_request", found), value("round_time", found))
        assert (value("tokens_per_second_decode", found) is not None) is defined
        assert values[0] is values[1] is None  # 29 tokens for 30 forwards are no length of 29
        assert value("tokens_per_second", found) is not None and values[2] is not None

    def test_rounds_of_many_forwards_without_drafts_have_no_acceptance_length(self, tmp_path):
        """Beam search emits what its beams agree on: each of those tokens cost a forward."""
        beams = [a_round(1), *(a_round(n, target_forwards=n) for n in (1, 6, 2))]
        found = summary_of(measured(tmp_path, row(METHOD, "a", 0, beams)))
        assert found["mal"] is found["mal_request"] is None
        assert found["step_compression"] == pytest.approx(1.0)
        windows = [a_round(1), *(a_round(n) for n in (1, 6, 2))]  # parallel: a forward a round
        found = summary_of(measured(tmp_path, row(METHOD, "a", 0, windows)))
        assert found["mal"] == pytest.approx(3.0)


class TestWhatIsNotRecorded:
    """Imported files lack fields of a round: what needs one is None, and the rest is there."""

    def lacking(self, folder, *fields, rounds=None):
        rounds = rounds or [a_round(1), *(a_round(n + 1, 4, n) for n in (2, 0))]
        kept = [{name: e[name] for name in e if name not in fields} for e in rounds]
        return measured(folder, {**row(METHOD, "a", 0, rounds), "rounds": kept})

    def test_without_proposals(self, tmp_path):
        found = summary_of(self.lacking(tmp_path, "proposed", "nodes"))
        assert (found["mal"], found["accepted_per_round"]) == (2.0, 1.0)
        assert found["acceptance_histogram"] == (1, 0, 1)
        assert found["acceptance_rate"] is found["draft_efficiency"] is None
        assert found["acceptance_by_position"] == ()

    def test_without_times(self, tmp_path):
        found = summary_of(self.lacking(tmp_path, "draft_ns"))
        assert found["round_time"] is None
        assert found["acceptance_rate"] == pytest.approx(2 / 4)

    def test_without_forwards_nothing_is_said_to_settle_late(self, tmp_path):
        found = self.lacking(tmp_path, "target_forwards", "draft_forwards")
        assert not found.settles_late
        assert value("mal", found) == 2.0

    def test_without_rounds(self, tmp_path):
        values = {**row(METHOD, "a", 0, plain_rounds(3)), "rounds": None, "host_ns": None}
        lacking = measured(tmp_path, values)
        assert lacking.rows["verification_rounds"].isna().all()
        found = summary_of(lacking)
        assert found["mal"] is found["mal_request"] is found["host_share"] is None
        assert found["acceptance_histogram"] == ()
        assert found["tokens_per_second"] == pytest.approx(200)

    def test_one_unknown_round_makes_the_measurement_unknown_and_not_the_others(self, tmp_path):
        known, unknown = draft_rounds([4, 0]), draft_rounds([1, 1])
        unknown[1] = {**unknown[1], "accepted": None}
        found = measured(
            tmp_path,
            row(METHOD, "a", 0, known),
            {**row(METHOD, "b", 0, draft_rounds([1, 1])), "rounds": unknown},
        )
        assert value("accepted_per_round", found) == pytest.approx(2.0)
        assert value("mal", found) == pytest.approx((5 + 1 + 2 + 2) / 4)


def test_counts_are_those_of_the_chosen_measurements(tmp_path):
    found = measured(
        tmp_path,
        row(METHOD, "a", 0, draft_rounds([4, 0])),
        row(METHOD, "b", 0, draft_rounds([3, 3, 3])),
        row(METHOD, "c", 0, draft_rounds([1])),
    )
    some = found.take(pd.Index([2, 0]))
    assert value("acceptance_histogram", some) == (1, 1, 0, 0, 1)
    assert value("acceptance_by_position", some) == pytest.approx((2 / 3, 1 / 2, 1.0, 1.0))


@pytest.mark.parametrize("field", ["accepted", "emitted", "target_ns"])
def test_a_number_below_0_is_refused(tmp_path, field):
    rounds = [a_round(1), {**a_round(2, 4, 1), field: -5}]
    with pytest.raises(ResultsError, match=f"'{field}' is -5"):
        measured(tmp_path, row(METHOD, "a", 0, rounds))


def test_a_draft_beyond_belief_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="damaged"):
        measured(tmp_path, row(METHOD, "a", 0, [a_round(1), a_round(2, 2**30, 2**30)]))
