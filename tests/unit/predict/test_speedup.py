"""Speedup by batch and length: limits, monotonicity, and searches against brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specbench.errors import UsageError
from specbench.predict.profile import RoundCost, RoundWork
from specbench.predict.speedup import LARGEST_BATCH, predict
from specbench.schema.hardware import Assumed
from specbench.schema.shape import Shape
from tests.unit.predict.worlds import IDEAL, SMALL, chain, device, question

TINY = Shape("tiny", "Tiny", 1, 1, 1, 1, 1, 1, 1, tied=True)


def free(rate: float, **changes: Any):
    """A chain that costs nothing to draft."""
    work = chain(rate).work
    return chain(rate, drafter="lookup", work=work._replace(draft_forwards=0, draft_tokens=0))


@pytest.mark.parametrize("length", [1, 3, 8])
def test_free_drafts_that_are_always_right_give_length_plus_one(length: int) -> None:
    cell = predict(free(1.0), question(lengths=(length,))).batches[0].best
    assert cell.tokens == length + 1
    # the cache of the drafted tokens is all that a round reads beyond a plain step
    assert cell.speedup == pytest.approx((length + 1) * 752 / (720 + 32 * (length + 1)))


@pytest.mark.parametrize("batch", [1, 16])
def test_drafts_that_are_always_wrong_lose(batch: int) -> None:
    answer = predict(chain(0.0), question(batches=(batch,))).batches[0]
    assert all(cell.speedup < 1 for cell in (*answer.sweep, answer.measured))
    assert answer.best.length == 1


def test_a_draft_as_costly_as_the_target_by_hand() -> None:
    hardware = device(bandwidth=1e9, flops=1e3)  # all compute
    cell = predict(chain(0.5), question(hardware, lengths=(2,))).batches[0].best
    # linear work only depends on tokens: 3 verified and 2 drafted for 1 + 1/2 + 1/4; attention:
    # 32 operations a pair, 3 x 3 verified, 2 x (1 x 1) drafted, 1 plain
    plain, round_ = 720 + 32, 3 * 720 + 9 * 32 + 2 * (720 + 32)
    assert cell.speedup == pytest.approx(1.75 * plain / round_)
    assert cell.bound == "compute"


def test_the_measured_length_of_a_sweep_is_the_measured_draft() -> None:
    answer = predict(chain(0.8, 4), question()).batches[0]
    at_four = next(cell for cell in answer.sweep if cell.length == 4)
    assert at_four.speedup == pytest.approx(answer.measured.speedup)
    assert answer.measured.length is None
    assert [cell.extrapolated for cell in answer.sweep] == [False] * 4 + [True] * 4


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("batch", [1, 64])
def test_the_best_length_is_the_best_of_all(rate: float, batch: int) -> None:
    asked = question(device(flops=1e5, assumed=Assumed()), draft=TINY, batches=(batch,))
    best = predict(chain(rate), asked).batches[0].best
    alone = {
        length: predict(chain(rate), replace(asked, lengths=(length,))).batches[0].best.speedup
        for length in asked.lengths
    }
    assert best.speedup == max(alone.values())
    assert best.length == max(alone, key=lambda length: alone[length])


def test_better_acceptance_asks_for_longer_drafts() -> None:
    hardware = device(assumed=replace(IDEAL, round_overhead_us=1e5))
    lengths = [
        predict(chain(rate), question(hardware, draft=TINY, lengths=tuple(range(1, 60))))
        .batches[0]
        .best.length
        or 0
        for rate in (0.2, 0.5, 0.8, 0.95)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


@pytest.mark.parametrize("rate", [0.4, 0.7])
def test_the_batch_that_stops_paying_is_the_first_that_loses(rate: float) -> None:
    asked = question(device(flops=2e3), draft=TINY, context=5)
    lost = predict(chain(rate), asked).stops_paying
    assert lost is not None and lost > 1
    scan = predict(chain(rate), replace(asked, batches=tuple(range(1, lost + 1)))).batches
    assert [answer.best.speedup >= 1 for answer in scan] == [True] * (lost - 1) + [False]


def test_the_search_ends_with_the_last_batch_that_fits() -> None:
    asked = question(device(flops=2e3), draft=TINY, context=5)
    lost = predict(chain(0.7), asked).stops_paying
    assert lost is not None and lost & (lost - 1)  # between two powers of two
    weights, each = 800 + 16, 5 * (32 + 4)
    for room, expected in ((lost, lost), (lost - 1, None)):
        tight = replace(asked, hardware=device(flops=2e3, memory=float(weights + each * room)))
        answer = predict(chain(0.7), tight)
        assert answer.largest_batch == room
        assert answer.stops_paying == expected


def test_a_batch_beyond_the_memory_is_not_searched() -> None:
    # weights of both: 800 + 800 bytes; 10 tokens of cache for each request: 320 + 320
    asked = question(device(flops=2e4, memory=1600 + 5 * 640), context=10)
    answer = predict(free(0.9), asked)
    assert answer.largest_batch == (1600 + 5 * 640 - 800) // 320
    with_draft = predict(chain(0.9), replace(asked, batches=(1, 5, 6)))
    assert with_draft.largest_batch == 5
    assert [batch.fits for batch in with_draft.batches] == [True, True, False]
    assert with_draft.batches[0].memory_bytes == 1600 + 640


def test_a_model_that_does_not_fit_at_all_has_no_batch() -> None:
    answer = predict(chain(0.9), question(device(memory=700.0)))
    assert answer.largest_batch == 0
    assert not answer.batches[0].fits


def test_a_device_without_limits_holds_the_largest_batch_of_the_search() -> None:
    answer = predict(free(0.9), question(device(flops=1e15), context=1000))
    assert answer.largest_batch == LARGEST_BATCH
    assert answer.stops_paying is None


def test_theorem_3_8_where_nothing_but_weights_is_read() -> None:
    wide = replace(SMALL, heads=1, key_value_heads=1, head_size=1, layers=1)
    asked = question(device(bandwidth=1.0, flops=1e18), target=SMALL, draft=wide, lengths=(3,))
    answer = predict(chain(0.7), asked).batches[0]
    ratio = (wide.multiplied_parameters * 2 + 4) / (720 + 32)
    assert answer.independent == pytest.approx((1 + 0.7 + 0.49 + 0.343) / (3 * ratio + 1))


def test_early_exit_costs_the_share_that_was_measured() -> None:
    cost = RoundCost(2.0, 1.0, 0.0, 0.0, 1.0, 1.0)  # 4 forwards took 2 plain target forwards
    cell = predict(chain(0.8, drafter="self", cost=cost), question(lengths=(4,))).batches[0].best
    assert cell.draft_seconds == pytest.approx(4 * 0.5 * 752 / 720)


def test_lookups_keep_their_measured_time_on_any_device() -> None:
    cost = RoundCost(0.25, 1.0, 0.0, 0.0, 1.0, plain_seconds=2.0)
    profile = chain(0.8, drafter="lookup", cost=cost)
    for bandwidth in (720.0, 7.2e6):
        cell = predict(profile, question(device(bandwidth), lengths=(4,))).batches[0].best
        assert cell.host_seconds == pytest.approx(0.5)
        assert cell.draft_seconds == 0


def test_a_fixed_draft_is_predicted_as_it_was_measured() -> None:
    answer = predict(chain(0.8, fixed="it has a window"), question())
    assert answer.batches[0].sweep == ()
    assert answer.batches[0].best == answer.batches[0].measured
    assert any("it has a window" in note for note in answer.notes)


def test_rows_are_charged_to_plain_decoding_too() -> None:
    hardware = device(bandwidth=1e9, flops=1e3)
    one = predict(free(0.8), question(hardware)).batches[0]
    two = predict(replace(free(0.8), rows=2), question(hardware)).batches[0]
    assert two.plain_tokens_per_second == pytest.approx(one.plain_tokens_per_second / 2)
    assert two.best.speedup == pytest.approx(one.best.speedup)


def test_tree_nodes_are_spread_over_the_levels() -> None:
    tree = chain(0.8, 4, work=RoundWork(3.0, 1.0, 17.0, 4.0, 12.0))
    assert tree.branches
    half = tree.at(2)
    assert half.target_tokens == pytest.approx(1 + 8)
    assert (half.draft_forwards, half.draft_tokens) == pytest.approx((2, 6))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"batches": (0,)}, "--batch"),
        ({"batches": ()}, "--batch"),
        ({"lengths": (-1, 2)}, "--length"),
        ({"context": -1}, "--context"),
    ],
)
def test_impossible_questions_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        question(**changes)


def test_a_draft_model_needs_a_shape() -> None:
    with pytest.raises(UsageError, match="drafts with a model"):
        predict(chain(0.8), question(draft=None))
    assert predict(free(0.8), question(draft=None)).batches[0].best.speedup > 1
