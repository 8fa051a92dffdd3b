"""Answer files are read as their authors meant them, and whatever is odd in them is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specbench.errors import ResultsError
from specbench.importing import read_source
from specbench.importing.records import Published, PublishedRound, Turn
from tests.unit.importing.factory import (
    answer,
    choice,
    rest_baseline,
    rest_method,
    spec_bench,
    write,
)


def read(tmp_path: Path, *lines: Any, **options: Any) -> Published:
    return read_source(write(tmp_path / "answers.jsonl", *lines), **options)


def turns(source: Published, question: int = 0) -> tuple[Turn, ...]:
    return source.answers[question].turns


def says(sentences: tuple[str, ...], words: str) -> bool:
    return any(words in sentence for sentence in sentences)


def test_the_first_length_of_rest_counts_draft_tokens_only(tmp_path: Path) -> None:
    source = read(tmp_path, rest_method())
    first, second = turns(source)
    assert source.format == "rest"
    assert first.prefill_tokens == second.prefill_tokens == 1
    assert first.rounds == (PublishedRound(0, 0), PublishedRound(3, 2), PublishedRound(2, 1))
    assert second.rounds == (PublishedRound(2, 2), PublishedRound(2, 1))
    assert says(source.odd, "one token short")
    assert says(source.odd, "accept length of 0 is a step that accepted no draft token (1 turn)")


def test_every_token_of_a_turn_is_credited_once(tmp_path: Path) -> None:
    for turn in turns(read(tmp_path, rest_method())):
        emitted = turn.prefill_tokens + sum(step.emitted or 0 for step in turn.rounds or ())
        assert emitted == turn.new_tokens


def test_a_last_index_is_one_fewer_than_the_steps(tmp_path: Path) -> None:
    source = read(tmp_path, answer(1, choice([10], [1.0], [3])))
    assert len(turns(source)[0].rounds or ()) == 4
    assert says(source.odd, "idxs is the last index")


def test_steps_of_which_only_the_number_is_known_stay_unknown(tmp_path: Path) -> None:
    source = read(tmp_path, answer(1, choice([10], [1.0], [3]), model_id="medusa-vicuna-7b-v1.3"))
    assert source.format == "medusa"
    assert turns(source)[0].rounds == (PublishedRound(None, None),) * 4
    assert says(source.unknown, "only the number of steps")


def test_the_colon_of_a_key_is_read_and_said(tmp_path: Path) -> None:
    assert says(read(tmp_path, rest_method()).odd, "ends in a colon")


def test_rest_times_decoding_only(tmp_path: Path) -> None:
    source = read(tmp_path, rest_method())
    turn = turns(source)[0]
    assert turn.total_ns == turn.decode_ns == 500_000_000
    assert turn.prefill_ns is None
    assert says(source.odd, "without the prefill")


def test_other_scripts_time_the_prefill_too(tmp_path: Path) -> None:
    turn = turns(read(tmp_path, answer(1, choice([10], [1.0], [3]))))[0]
    assert (turn.total_ns, turn.decode_ns, turn.prefill_ns) == (1_000_000_000, None, None)


def test_plain_decoding_is_known_by_its_one_token_a_step(tmp_path: Path) -> None:
    assert read(tmp_path, rest_baseline()).plain
    assert not read(tmp_path, rest_method()).plain
    assert read(tmp_path, answer(1, choice([7], [1.0]))).plain


def test_one_step_of_two_tokens_is_no_plain_decoding(tmp_path: Path) -> None:
    assert not read(tmp_path, rest_baseline(), answer(82, choice([7], [1.0], [5]))).plain


def test_steps_of_two_and_of_none_are_no_plain_decoding(tmp_path: Path) -> None:
    assert not read(tmp_path, spec_bench(81, [3], [2, 0, 1], [3])).plain
    assert read(tmp_path, spec_bench(81, [3], [1, 1, 1], [3])).plain


def test_a_baseline_of_transformers_writes_the_number_itself(tmp_path: Path) -> None:
    source = read(tmp_path, answer(1, choice([7], [1.0], [7])), answer(2, choice([3], [1.0], [3])))
    assert source.plain
    assert len(turns(source)[0].rounds or ()) == 7
    assert says(source.odd, "it is a number of steps here")


def test_a_script_that_counts_no_tokens_is_read_by_its_steps(tmp_path: Path) -> None:
    lines = [answer(at, choice([0], [1.0], [5]), model_id="medusa-base") for at in (1, 2)]
    source = read(tmp_path, *lines)
    assert source.plain
    assert turns(source)[0].new_tokens == 6
    assert says(source.odd, "new_tokens is 0 everywhere")


def test_an_error_is_a_failed_measurement_and_not_the_turn_before_it(tmp_path: Path) -> None:
    broken = choice([6, 6], [1.0, 1.0], [2, 2], turns=["fine", "ERROR"])
    source = read(tmp_path, rest_method(), answer(82, broken))
    failed = source.answers[1]
    assert failed.error is not None and "turn 1" in failed.error
    assert failed.turns == ()
    assert says(source.odd, "ERROR")


def test_choices_are_repeats(tmp_path: Path) -> None:
    line = answer(1, choice([4], [1.0], [1]), choice([5], [2.0], [2]))
    source = read(tmp_path, line)
    assert [(a.sample_id, a.repeat) for a in source.answers] == [("1", 0), ("1", 1)]
    assert not says(source.unknown, "measured once")
    assert says(source.odd, "a seed of its own")


def test_spec_bench_counts_every_token_among_its_steps(tmp_path: Path) -> None:
    source = read(tmp_path, spec_bench(81, [6, 3], [3, 2, 1, 1, 2], [3, 2]))
    assert source.format == "spec_bench"
    first, second = turns(source)
    assert (first.prefill_tokens, second.prefill_tokens) == (0, 0)
    assert first.rounds == (PublishedRound(3, 2), PublishedRound(2, 1), PublishedRound(1, 0))
    assert says(source.odd, "tokenising its text again")


@pytest.mark.parametrize(
    ("method", "forwards"), [("eagle", 1), ("pld", 0), ("recycling", 1), ("mystery", None)]
)
def test_spec_bench_methods_differ_in_where_the_prompt_runs(
    tmp_path: Path, method: str, forwards: int | None
) -> None:
    source = read(tmp_path, spec_bench(81, [3], [2, 1], [2], method))
    assert turns(source)[0].prefill_forwards == forwards


def test_a_step_count_that_is_one_short_gives_way_to_the_lengths(tmp_path: Path) -> None:
    source = read(tmp_path, spec_bench(81, [6, 3], [3, 2, 1, 1, 2], [2, 1], "recycling"))
    assert [len(turn.rounds or ()) for turn in turns(source)] == [3, 2]
    assert says(source.odd, "one short: the accept lengths are counted (1 question)")


def test_lengths_that_fit_no_turn_are_not_guessed_at(tmp_path: Path) -> None:
    source = read(tmp_path, spec_bench(81, [6, 3], [3, 2, 1, 1], [3, 2]))
    assert [turn.rounds for turn in turns(source)] == [
        (PublishedRound(None, None),) * 3,
        (PublishedRound(None, None),) * 2,
    ]
    assert says(source.odd, "cannot be divided")


def test_lengths_beyond_the_new_tokens_are_cut_at_the_end(tmp_path: Path) -> None:
    source = read(tmp_path, spec_bench(81, [4], [3, 4], [2]))
    assert turns(source)[0].rounds == (PublishedRound(3, 2), PublishedRound(1, 3))
    assert says(source.odd, "the last steps are cut")


def test_a_gap_of_several_tokens_is_said(tmp_path: Path) -> None:
    source = read(tmp_path, spec_bench(81, [9], [3, 4], [2]))
    assert turns(source)[0].prefill_tokens == 2
    assert says(source.odd, "several tokens short")


def test_a_question_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="line 2") as caught:
        read(tmp_path, rest_method(81), rest_method(81))
    assert "line 1 already" in caught.value.why


def test_of_a_question_that_stands_twice_the_last_line_may_be_kept(tmp_path: Path) -> None:
    late = rest_method(81, (2.0, 2.0))
    source = read(tmp_path, rest_method(81), rest_method(82), late, skip_bad=True)
    assert [a.sample_id for a in source.answers] == ["82", "81"]
    assert turns(source, 1)[0].total_ns == 2_000_000_000
    assert says(source.odd, "its last line is kept")


def test_a_start_is_the_time_of_writing_less_the_wall_times(tmp_path: Path) -> None:
    source = read(tmp_path, rest_method())
    assert source.answers[0].started_unix == pytest.approx(1700000000.0 - 0.75)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"wall_time": [0.0, 1.0]}, "wall_time[0]"),
        ({"wall_time": [-1.0, 1.0]}, "wall_time[0]"),
        ({"wall_time": [float("nan"), 1.0]}, "wall_time[0]"),
        ({"wall_time": [float("inf"), 1.0]}, "wall_time[0]"),
        ({"wall_time": [1.0]}, "differ in length: 2, 2, 2, 1"),
        ({"wall_time": "1.0"}, "a valid list"),
        ({"new_tokens": [6, -5]}, "new_tokens[1]"),
        ({"new_tokens": [6, 10**30]}, "new_tokens[1]"),
        ({"new_tokens": [6, 2.5]}, "valid integer"),
        ({"new_tokens": [6, True]}, "must be a number"),
        ({"idxs": [2, None]}, "idxs[1]' is missing"),
        ({"accept_lengths:": [0, 3, 2, 2, "2"]}, "accept_lengths:[4]"),
        ({"accept_lengths:": [0, 3, 2, 2, -2]}, "accept_lengths:[4]"),
        ({"turns": ["one", 2]}, "turns[1]' is 2"),
        ({"turns": ["one", "\ud800"]}, "half of a character"),
        ({"turns": []}, "0 entries"),
    ],
)
def test_a_line_that_cannot_be_believed_is_refused_with_its_number(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    bad = rest_method(82)
    bad["choices"][0].update(changes)
    with pytest.raises(ResultsError) as caught:
        read(tmp_path, rest_method(81), bad)
    assert "line 2" in caught.value.what
    assert reason in caught.value.why
    assert "--skip-bad" in caught.value.fix
    source = read(tmp_path, rest_method(81), bad, skip_bad=True)
    assert [a.sample_id for a in source.answers] == ["81"]
    assert says(source.odd, "Line 2 was left out as bad")


def test_an_answer_without_times_is_no_measurement(tmp_path: Path) -> None:
    line = rest_method()
    del line["choices"][0]["wall_time"]
    with pytest.raises(ResultsError) as caught:
        read(tmp_path, line)
    assert "no wall_time" in caught.value.why
