"""What is read from result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specbench.errors import ResultsError
from specbench.predict.profile import profiles_of
from specbench.schema.result import BASELINE, METHOD, MethodInfo
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


def config(name: str = "token_sd", needs: tuple[str, ...] = ("draft",), **parameters: Any):
    return {
        "method": {"name": name, "needs": list(needs), "parameters": parameters, "decoder": {}},
        "model": {"target": "embedded:t", "draft": "embedded:d", "modality": "text"},
    }


def job(folder: Path, rounds: list[dict[str, int]], name: str = "job", **changes: Any) -> ResultSet:
    """One sample: a baseline of ten tokens, and a method of these rounds."""
    changes.setdefault("config", config())
    rows = [row(BASELINE, "s", 0, plain_rounds(10)), row(METHOD, "s", 0, rounds)]
    return result_set(folder, rows, metadata(**changes), name)


def test_counts_and_times_of_a_chain(tmp_path: Path) -> None:
    # prefill, then drafts of 4 of which 4, 2 and 0 are accepted; 1 ms draft, 4 ms target, 1 ms host
    (profile,) = profiles_of([job(tmp_path, draft_rounds([4, 2, 0]))]).profiles
    assert profile.rounds == 3
    assert profile.drafter == "model"
    assert profile.acceptance.accepted == pytest.approx((2 / 3, 1, 1 / 2, 1))
    assert profile.work == pytest.approx((3.0, 1.0, 5.0, 4.0, 4.0))
    assert profile.kept == pytest.approx(1.0)
    assert profile.acceptance_rate == pytest.approx(6 / 8)
    assert profile.fixed == ""
    cost = profile.cost
    assert cost is not None
    assert (cost.draft, cost.target, cost.host, cost.plain_host) == pytest.approx(
        (0.25, 1.0, 0.25, 0.25)
    )
    # nine plain tokens of 5 ms against nine tokens in three rounds of 6 ms
    assert cost.observed_speedup == pytest.approx(45 / 18)
    assert cost.plain_seconds == pytest.approx(4e-3)


def test_the_measured_length_gives_the_measured_work(tmp_path: Path) -> None:
    (profile,) = profiles_of([job(tmp_path, draft_rounds([4, 2, 0]))]).profiles
    assert profile.at(4) == pytest.approx(profile.work)
    assert profile.at(None) == profile.work
    assert profile.at(2).tokens == pytest.approx(1 + (2 + 2 + 0) / 3)
    assert profile.at(2)[1:] == pytest.approx((1.0, 3.0, 2.0, 2.0))


def test_tokens_that_a_cut_drops_are_not_kept(tmp_path: Path) -> None:
    rounds = [a_round(1), a_round(5, 4, 4), a_round(2, 4, 4)]
    (profile,) = profiles_of([job(tmp_path, rounds)]).profiles
    assert profile.kept == pytest.approx(7 / 10)
    assert profile.at(4).tokens == pytest.approx(3.5)


def test_failed_measurements_and_prefills_count_for_nothing(tmp_path: Path) -> None:
    rows = [
        row(BASELINE, "s", 0, plain_rounds(10)),
        row(METHOD, "s", 0, draft_rounds([4, 2, 0])),
        failed_row(METHOD, "u", 0),
        row(METHOD, "v", 0, draft_rounds([1, 1]), error="boom"),
    ]
    whole = result_set(tmp_path, rows, metadata(config=config()))
    (profile,) = profiles_of([whole]).profiles
    assert profile.rounds == 3


def test_files_of_one_method_are_pooled_and_parameters_keep_apart(tmp_path: Path) -> None:
    files = [
        job(tmp_path, draft_rounds([4]), "a", config=config(length=4), task="one"),
        job(tmp_path, draft_rounds([0]), "b", config=config(length=4), task="two"),
        job(tmp_path, draft_rounds([2], 2), "c", config=config(length=2)),
        job(tmp_path, draft_rounds([2], 2), "d", method=MethodInfo("svip"), config=config("svip")),
    ]
    profiles = profiles_of(files).profiles
    assert [profile.label for profile in profiles] == [
        "token_sd (length=4)",
        "token_sd (length=2)",
        "svip",
    ]
    assert profiles[0].tasks == ("one", "two")
    assert profiles[0].rounds == 2


@pytest.mark.parametrize(
    ("needs", "forwards", "drafter"),
    [
        (("draft",), 4, "model"),
        (("layer_skip",), 4, "self"),
        (("features",), 4, "self"),
        ((), 0, "lookup"),
    ],
)
def test_what_drafts(tmp_path: Path, needs: tuple[str, ...], forwards: int, drafter: str) -> None:
    rounds = [a_round(1), a_round(3, 4, 2, draft_forwards=forwards, draft_tokens=forwards)]
    (profile,) = profiles_of([job(tmp_path, rounds, config=config(needs=needs))]).profiles
    assert profile.drafter == drafter


@pytest.mark.parametrize(
    ("rounds", "parameters", "reason"),
    [
        ([a_round(3, 4, 2, draft_forwards=0)], {"window": 16}, "window"),
        ([a_round(3, 4, 2)], {"window": 16}, ""),
        ([a_round(3, 4, 2, target_forwards=2)], {}, "not one target forward"),
        ([a_round(3, 4, 2, target_tokens=32)], {}, "more than the tokens"),
        ([a_round(3, 4, 2)], {}, ""),
    ],
)
def test_drafts_whose_length_cannot_be_varied(
    tmp_path: Path, rounds: list[dict[str, int]], parameters: dict[str, int], reason: str
) -> None:
    result = job(tmp_path, [a_round(1), *rounds], config=config(**parameters))
    (profile,) = profiles_of([result]).profiles
    assert reason in profile.fixed
    assert bool(profile.fixed) == bool(reason)
    if reason:
        assert profile.at(1) == profile.work


def test_an_import_without_proposals_is_read_as_its_longest_acceptance(tmp_path: Path) -> None:
    unknown = {name: 0 for name in ("target_forwards", "target_tokens", "draft_forwards", "nodes")}
    rounds = [a_round(1), *(a_round(n + 1, 0, n, **unknown) for n in (3, 1, 0))]
    (profile,) = profiles_of([job(tmp_path, rounds)]).profiles
    assert profile.acceptance.accepted == pytest.approx((2 / 3, 1 / 2, 1))
    assert profile.work == pytest.approx((7 / 3, 1.0, 4.0, 3.0, 3.0))
    assert "does not say how many" in profile.notes[0]
    assert "does not say what a round feeds" in profile.notes[1]


def test_methods_that_propose_nothing_are_left_out_by_name(tmp_path: Path) -> None:
    plain = job(tmp_path, plain_rounds(9), "b", method=MethodInfo("beam"), config=config("beam"))
    found = profiles_of([job(tmp_path, draft_rounds([4])), plain])
    assert [profile.label for profile in found.profiles] == ["token_sd"]
    assert found.left_out == (("beam", "it proposes no draft tokens"),)
    with pytest.raises(ResultsError, match="No file has an acceptance") as caught:
        profiles_of([plain])
    assert "beam" in caught.value.why


def test_guided_pictures_have_two_rows(tmp_path: Path) -> None:
    guided = config()
    guided["model"] = {**guided["model"], "modality": "image"}
    for number, (scale, rows) in enumerate(((2.0, 2), (1.0, 1))):
        about = {**guided, "sampling": {"cfg_scale": scale}}
        (profile,) = profiles_of(
            [job(tmp_path, draft_rounds([4]), f"f{number}", config=about)]
        ).profiles
        assert profile.rows == rows


def test_without_a_baseline_there_is_acceptance_but_no_cost(tmp_path: Path) -> None:
    rows = [row(METHOD, "s", 0, draft_rounds([4, 2, 0]))]
    result = result_set(tmp_path, rows, metadata(baseline=None, config=config()))
    (profile,) = profiles_of([result]).profiles
    assert profile.cost is None
