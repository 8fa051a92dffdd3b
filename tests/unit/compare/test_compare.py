"""Pooling, pairing, refusing and judging, on result files with known answers."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest

from specbench.compare import BETTER, INCONCLUSIVE, SAME, WORSE, Speedup, compare
from specbench.compare.build import verdict
from specbench.errors import NotComparable, ResultsError, UsageError
from specbench.report import columns
from specbench.schema.result import BASELINE, METHOD, MethodInfo
from specbench.stats import Interval
from tests.unit.compare.factory import (
    AR,
    TOKEN_SD,
    failed_row,
    job_rows,
    metadata,
    plain_rounds,
    result_set,
    row,
    slowed,
)

PLD = MethodInfo("pld", "Prompt lookup", "exact")
LOSSY = MethodInfo("typical", "Typical acceptance", "lossy", knob="epsilon")


def only(comparison, label=None):
    """The one method row, or the one with this label."""
    rows = [r for r in comparison.rows if not r.is_baseline and label in (None, r.label)]
    assert len(rows) == 1, [r.label for r in comparison.rows]
    return rows[0]


def simple_rows(samples=4, repeats=2, speed=2.0, **changes):
    """Both arms with equal tokens; the method is `speed` times as fast, exactly."""
    rows = []
    for number in range(samples):
        for repeat in range(repeats):
            plain = row(BASELINE, f"s{number}", repeat, plain_rounds(5 + number), **changes)
            rows.append(plain)
            fast = row(METHOD, f"s{number}", repeat, plain_rounds(5 + number), **changes)
            rows.append(slowed(fast, 1 / speed))
    return rows


class TestOneFile:
    def test_speedup_is_the_ratio_of_total_times(self, tmp_path):
        comparison = compare([result_set(tmp_path, simple_rows(), metadata())])
        method = only(comparison)
        assert method.speedup_e2e.value == pytest.approx(2.0, rel=1e-6)
        assert method.speedup_decode.value == pytest.approx(2.0, rel=1e-6)
        assert method.speedup_e2e.verdict == BETTER
        assert (method.samples, method.repeats, method.processes, method.failed) == (4, 2, 1, 0)

    def test_the_baseline_comes_first_and_has_no_speedup(self, tmp_path):
        comparison = compare([result_set(tmp_path, simple_rows(), metadata())])
        assert [r.label for r in comparison.rows] == ["ar", "token_sd"]
        assert comparison.rows[0].is_baseline
        assert comparison.rows[0].speedup_e2e is None
        assert comparison.rows[0].quantities["mal"] == 1.0

    def test_order_of_rows_does_not_matter(self, tmp_path):
        rows = job_rows()
        forward = compare([result_set(tmp_path, rows, metadata(), "a")])
        backward = compare([result_set(tmp_path, rows[::-1], metadata(), "a")])
        one, other = only(forward), only(backward)
        assert one.speedup_e2e.value == pytest.approx(other.speedup_e2e.value)
        assert one.quantities["mal"] == other.quantities["mal"]

    def test_failed_measurements_leave_both_arms_and_are_counted(self, tmp_path):
        rows = [
            failed_row(METHOD, r["sample_id"], r["repeat"])
            if (r["arm"], r["sample_id"]) == (METHOD, "s3")
            else r
            for r in simple_rows()
        ]
        comparison = compare([result_set(tmp_path, rows, metadata())])
        method = only(comparison)
        assert (method.samples, method.failed) == (3, 1)
        assert method.speedup_e2e.value == pytest.approx(2.0, rel=1e-6)
        assert method.score.n == 3
        assert any("1 sample with failed" in warning for warning in comparison.warnings)
        assert comparison.rows[0].failed == 0

    def test_a_repeat_that_failed_leaves_the_samples_other_repeats(self, tmp_path):
        rows = simple_rows()
        rows[0] = failed_row(BASELINE, "s0", 0)
        method = only(compare([result_set(tmp_path, rows, metadata())]))
        assert (method.samples, method.failed) == (4, 1)

    def test_everything_failed(self, tmp_path):
        rows = [failed_row(arm, "a", 0) for arm in (BASELINE, METHOD)]
        method = only(compare([result_set(tmp_path, rows, metadata())]))
        assert (method.samples, method.failed, method.speedup_e2e) == (0, 1, None)
        assert method.quantities["mal"] is None

    def test_a_measurement_without_a_partner_is_left_out_and_told(self, tmp_path):
        comparison = compare([result_set(tmp_path, simple_rows()[:-1], metadata())])
        assert any("without a partner" in warning for warning in comparison.warnings)
        assert only(comparison).speedup_e2e.value == pytest.approx(2.0, rel=1e-6)

    def test_of_lines_that_name_one_measurement_the_last_counts(self, tmp_path):
        stale = [slowed(r, 7) for r in simple_rows() if r["arm"] == METHOD]
        comparison = compare([result_set(tmp_path, [*stale, *simple_rows()], metadata())])
        assert only(comparison).speedup_e2e.value == pytest.approx(2.0, rel=1e-6)

    def test_without_a_baseline_there_is_no_speedup(self, tmp_path):
        rows = [r for r in simple_rows() if r["arm"] == METHOD]
        comparison = compare([result_set(tmp_path, rows, metadata(baseline=None))])
        method = only(comparison)
        assert method.speedup_e2e is method.predicted_speedup is None
        assert method.quantities["tokens_per_second"] > 0
        assert any("without a baseline" in warning for warning in comparison.warnings)

    def test_one_repeat_has_no_floor_and_no_verdict(self, tmp_path):
        comparison = compare([result_set(tmp_path, simple_rows(repeats=1), metadata())])
        assert only(comparison).speedup_e2e.noise_floor is None
        assert only(comparison).speedup_e2e.verdict == INCONCLUSIVE
        assert any("timing.repeats=3" in warning for warning in comparison.warnings)

    def test_one_sample_has_no_interval(self, tmp_path):
        comparison = compare([result_set(tmp_path, simple_rows(samples=1), metadata())])
        assert only(comparison).speedup_e2e.interval is None
        assert any("no interval" in warning for warning in comparison.warnings)

    def test_more_tokens_than_the_baseline_are_told(self, tmp_path):
        rows = simple_rows()
        for entry in rows:
            if entry["arm"] == METHOD:
                entry["new_tokens"] *= 2
        comparison = compare([result_set(tmp_path, rows, metadata())])
        assert only(comparison).tokens_ratio == pytest.approx(2.0)
        assert any("+100% tokens" in warning for warning in comparison.warnings)

    def test_quality_is_a_paired_difference(self, tmp_path):
        rows = simple_rows(samples=10)
        for entry in rows:
            wrong = entry["arm"] == METHOD and entry["sample_id"] in ("s0", "s1")
            entry["score"] = 0.0 if wrong else 1.0
        method = only(compare([result_set(tmp_path, rows, metadata())]))
        assert method.score.value == pytest.approx(0.8)
        assert method.score_difference.value == pytest.approx(-0.2)
        assert method.score_difference.n == 10
        assert method.score_name == "exact_match"

    def test_a_claim_of_exactness_that_the_tokens_break_is_told(self, tmp_path):
        rows = job_rows(fidelity="diverged")
        result = result_set(tmp_path, rows, metadata())
        assert any("claims to be exact" in warning for warning in compare([result]).warnings)
        lossy = result_set(tmp_path, rows, metadata(LOSSY), "lossy")
        assert not any("claims" in warning for warning in compare([lossy]).warnings)

    def test_a_lossy_method_without_a_score_is_told(self, tmp_path):
        rows = job_rows(score=None, score_name=None)
        comparison = compare([result_set(tmp_path, rows, metadata(LOSSY))])
        assert any("quality is not known" in warning for warning in comparison.warnings)


class TestImported:
    SOURCE = {
        "format": "rest",
        "files": [{"name": "a.jsonl", "sha256": "00"}],
        "unknown": ["The dtype is not recorded."],
        "odd": ["A key ends in a colon."],
    }

    def test_what_its_source_says_is_warned_of_once(self, tmp_path):
        sets = [
            result_set(
                tmp_path,
                simple_rows(repeats=1, started_unix=float(n)),
                metadata(method, source=self.SOURCE),
                method.name,
            )
            for n, method in enumerate((TOKEN_SD, PLD))
        ]
        comparison = compare(sets)
        assert comparison.setting.imported
        said = "token_sd, pld (source): The dtype is not recorded. A key ends in a colon."
        assert comparison.warnings.count(said) == 1
        assert not any("task.limit" in warning for warning in comparison.warnings)

    def test_what_one_source_says_is_said_of_it_alone(self, tmp_path):
        other = {**self.SOURCE, "unknown": ["The device is not recorded."]}
        sets = [
            result_set(
                tmp_path,
                simple_rows(repeats=1, started_unix=float(n)),
                metadata(method, source=source),
                method.name,
            )
            for n, (method, source) in enumerate(((TOKEN_SD, self.SOURCE), (PLD, other)))
        ]
        warnings = compare(sets).warnings
        assert "token_sd (source): The dtype is not recorded." in warnings
        assert "pld (source): The device is not recorded." in warnings
        assert "token_sd, pld (source): A key ends in a colon." in warnings

    def test_without_a_baseline_the_advice_is_to_import_one(self, tmp_path):
        rows = [entry for entry in simple_rows() if entry["arm"] == "method"]
        for source, advice in ((self.SOURCE, "--baseline FILE"), ({}, "baseline=ar")):
            about = metadata(source=source, baseline=None)
            (said,) = (
                warning
                for warning in compare([result_set(tmp_path, rows, about)]).warnings
                if "without a baseline" in warning
            )
            assert advice in said

    def test_a_class_that_is_not_stated_is_explained(self, tmp_path):
        for exactness, explained in (("unknown", True), ("exact", False)):
            about = metadata(MethodInfo("rest", exactness=exactness), source=self.SOURCE)
            comparison = compare([result_set(tmp_path, simple_rows(), about)])
            legend = columns.legend(columns.COLUMNS[:2], comparison.rows)
            assert ("unknown: its source does not state the class." in legend) == explained

    def test_no_advice_to_measure_again_what_was_published(self, tmp_path):
        rows = simple_rows(repeats=1)
        warnings = compare([result_set(tmp_path, rows, metadata(source=self.SOURCE))]).warnings
        assert any("no noise floor" in warning for warning in warnings)
        assert not any("timing.repeats" in warning for warning in warnings)

    def test_a_measured_file_is_not_imported(self, tmp_path):
        assert not compare([result_set(tmp_path, simple_rows(), metadata())]).setting.imported


class TestRates:
    def test_means_and_totals_of_rates_differ_where_lengths_do(self, tmp_path):
        """Times 40 and 20 ms of the baseline, 20 and 40 of the method; tokens 8 and 4 in both."""
        rows = []
        for sample, tokens, factor in (("a", 8, 0.5), ("b", 4, 2.0)):
            for repeat in range(2):
                rows.append(row(BASELINE, sample, repeat, plain_rounds(tokens)))
                rows.append(slowed(row(METHOD, sample, repeat, plain_rounds(tokens)), factor))
        method = only(compare([result_set(tmp_path, rows, metadata())]))
        assert method.speedup_e2e.value == pytest.approx(1.0)
        assert method.speedup_pooled_rate.value == pytest.approx(1.0)
        assert method.speedup_mean_rate.value == pytest.approx(
            (8 / 20 + 4 / 40) / (8 / 40 + 4 / 20)
        )

    def test_more_tokens_count_for_rates_and_not_for_times(self, tmp_path):
        rows = simple_rows(speed=1.0)
        for entry in rows:
            if entry["arm"] == METHOD:
                entry["new_tokens"] *= 2
        method = only(compare([result_set(tmp_path, rows, metadata())]))
        assert method.speedup_e2e.value == pytest.approx(1.0)
        assert method.speedup_mean_rate.value == pytest.approx(2.0)
        assert method.speedup_pooled_rate.value == pytest.approx(2.0)

    def test_the_interval_of_pooled_rates_is_that_of_times_where_tokens_are_equal(self, tmp_path):
        method = only(compare([result_set(tmp_path, job_rows(), metadata())]))
        assert method.speedup_pooled_rate.value == pytest.approx(method.speedup_e2e.value)
        wanted = pytest.approx(method.speedup_e2e.interval, rel=2e-3)
        assert method.speedup_pooled_rate.interval == wanted


class TestDetectable:
    def noisy(self, folder, samples, effect):
        generator = np.random.default_rng(0)
        rows = []
        for sample in range(samples):
            for repeat in range(3):
                for arm in (BASELINE, METHOD):
                    factor = float(np.exp(generator.normal(0, 0.2)))
                    factor /= effect if arm == METHOD else 1.0
                    entry = row(arm, f"s{sample}", repeat, plain_rounds(6))
                    rows.append(slowed(entry, factor))
        return compare([result_set(folder, rows, metadata(), f"{samples}-{effect}")])

    def test_a_run_says_what_it_could_have_found(self, tmp_path):
        few, many = (only(self.noisy(tmp_path, n, 1.0)).speedup_e2e for n in (8, 80))
        assert few.detectable > many.detectable > 1.0
        assert few.detectable > few.noise_floor

    def test_an_undecided_effect_says_how_many_samples_would_decide_it(self, tmp_path):
        comparison = self.noisy(tmp_path, 8, 1.12)
        speedup = only(comparison).speedup_e2e
        assert speedup.verdict == INCONCLUSIVE
        advice = [w for w in comparison.warnings if "this run could have told" in w]
        assert len(advice) == 1
        assert f"{speedup.detectable:.3g}x from 1" in advice[0]
        if speedup.value > speedup.noise_floor:
            assert speedup.samples_needed > 8 and "measure about" in advice[0]

    def test_undecided_rows_share_a_line(self, tmp_path):
        names = ("pld", "rest", "svip")
        generator = np.random.default_rng(1)
        sets = [
            result_set(
                tmp_path,
                [
                    slowed(
                        entry, generator.normal(1, 0.1) * (1.05 if entry["arm"] == METHOD else 1)
                    )
                    for entry in simple_rows(12, 3, 1.0, started_unix=float(n))
                ],
                metadata(MethodInfo(name)),
                name,
            )
            for n, name in enumerate(names)
        ]
        comparison = compare(sets)
        undecided = [
            row.label
            for row in comparison.rows
            if row.speedup_e2e and row.speedup_e2e.verdict == INCONCLUSIVE
        ]
        assert sorted(undecided) == sorted(names)
        lines = [w for w in comparison.warnings if "could have told" in w]
        assert len(lines) <= 2
        for found in comparison.rows[1:]:
            told = f"{found.label} ({found.speedup_e2e.detectable:.3g}x"
            assert any(told in line for line in lines)

    def test_a_decided_one_needs_no_more(self, tmp_path):
        speedup = only(self.noisy(tmp_path, 40, 2.0)).speedup_e2e
        assert speedup.verdict == BETTER
        assert speedup.samples_needed is None


class TestPooling:
    def test_runs_of_one_method_are_pooled_as_processes(self, tmp_path):
        sets = [
            result_set(tmp_path, simple_rows(started_unix=float(i)), metadata(), f"run{i}")
            for i in range(3)
        ]
        comparison = compare(sets)
        assert len(comparison.rows) == 2
        assert only(comparison).processes == 3
        assert only(comparison).samples == 4

    def test_pairs_stay_inside_their_file(self, tmp_path):
        """The second run's machine is three times slower in both arms: the ratio stays 2."""
        slow = [slowed(r, 3) for r in simple_rows(started_unix=2.0)]
        sets = [
            result_set(tmp_path, simple_rows(), metadata(), "one"),
            result_set(tmp_path, slow, metadata(), "two"),
        ]
        speedup = only(compare(sets)).speedup_e2e
        assert speedup.value == pytest.approx(2.0, rel=1e-6)
        assert speedup.noise_floor == pytest.approx(1.0, abs=1e-6)

    def test_a_copy_of_a_file_is_no_second_run(self, tmp_path):
        rows = simple_rows()
        sets = [result_set(tmp_path, rows, metadata(), name) for name in ("one", "copy")]
        comparison = compare(sets)
        assert only(comparison).processes == 1
        assert any("same run" in warning for warning in comparison.warnings)

    def test_other_parameters_are_another_row_and_are_named(self, tmp_path):
        sets = [
            result_set(
                tmp_path,
                simple_rows(started_unix=float(length)),
                metadata(parameters={"draft_length": length, "seed": 0}),
                f"length{length}",
            )
            for length in (4, 6)
        ]
        labels = [r.label for r in compare(sets).rows]
        assert labels == ["ar", "token_sd (draft_length=4)", "token_sd (draft_length=6)"]

    @pytest.mark.parametrize(
        ("needs", "labels"),
        [(["draft"], ["ar", "token_sd (draft=one)", "token_sd (draft=two)"]), ([], ["ar", "pld"])],
    )
    def test_another_draft_is_another_method_where_one_is_used(self, tmp_path, needs, labels):
        sets = []
        for number, draft in enumerate(("one", "two")):
            method = TOKEN_SD if needs else PLD
            config = {
                "method": {"name": method.name, "needs": needs, "parameters": {}},
                "model": {"target": "a/b", "draft": draft},
            }
            rows = simple_rows(started_unix=float(number))
            sets.append(result_set(tmp_path, rows, metadata(method, config=config), draft))
        assert [r.label for r in compare(sets).rows] == labels

    def test_two_methods_share_one_baseline_row(self, tmp_path):
        sets = [
            result_set(tmp_path, simple_rows(speed=2.0), metadata(), "sd"),
            result_set(tmp_path, simple_rows(speed=3.0, started_unix=5.0), metadata(PLD), "pld"),
        ]
        comparison = compare(sets)
        assert [r.label for r in comparison.rows] == ["ar", "pld", "token_sd"]
        assert comparison.rows[0].samples == 4
        assert comparison.rows[0].processes == 2

    def test_different_numbers_of_samples_are_told(self, tmp_path):
        sets = [
            result_set(tmp_path, simple_rows(samples=4), metadata(), "sd"),
            result_set(tmp_path, simple_rows(samples=6), metadata(PLD), "pld"),
        ]
        assert any("different numbers of samples" in w for w in compare(sets).warnings)


class TestDraws:
    """Files that differ in their seed are draws of one law, and pass@k counts draws."""

    BASELINE_PASSES = {"s0": (0, 1, 2, 3, 4), "s1": (0,), "s2": ()}
    METHOD_PASSES = {"s0": (0, 1), "s1": (3,), "s2": (0, 2, 4)}

    def seeded(
        self,
        folder,
        seed,
        repeats=1,
        temperature=0.8,
        method=TOKEN_SD,
        samples=("s0", "s1", "s2"),
        name="",
        **more,
    ):
        """One seed's file: the text's length depends on the seed, so that seeds differ in time."""
        rows = []
        passes = {BASELINE: self.BASELINE_PASSES, METHOD: self.METHOD_PASSES}
        for arm in (BASELINE, METHOD):
            for sample in samples:
                for repeat in range(repeats):
                    right = seed in passes[arm][sample]
                    values = {"score": float(right), "score_name": "pass_at_1"}
                    values |= {"started_unix": float(seed), "fidelity": None} | more
                    entry = row(arm, sample, repeat, plain_rounds(5 + 3 * seed), **values)
                    rows.append(entry if arm == BASELINE else slowed(entry, 0.5))
        config = {
            "method": {"name": method.name, "parameters": {}, "decoder": {}},
            "sampling": {"temperature": temperature, "seed": seed},
        }
        about = metadata(
            method,
            job_id=f"{method.name}{seed}",
            config=config,
            temperature=temperature,
            scorer={"pass_at_1": 1},
        )
        return result_set(folder, rows, about, name or f"{method.name}{seed}")

    def five(self, folder, **options):
        return [self.seeded(folder, seed, **options) for seed in range(5)]

    def test_seeds_are_pooled_and_pass_at_k_is_the_share_of_choices_with_a_right_one(
        self, tmp_path
    ):
        comparison = compare(self.five(tmp_path))
        baseline, method = comparison.rows
        assert (baseline.draws, method.draws, method.samples) == (5, 5, 3)

        def expected(passes, k):
            chosen = list(combinations(range(5), k))
            shares = [
                sum(bool({*some} & {*right}) for some in chosen) / len(chosen)
                for right in passes.values()
            ]
            return sum(shares) / len(shares)

        for found, passes in ((baseline, self.BASELINE_PASSES), (method, self.METHOD_PASSES)):
            assert list(found.pass_at_k) == [1, 2, 5]
            for k, value in found.pass_at_k.items():
                assert value == pytest.approx(expected(passes, k), abs=1e-12)
            assert found.pass_at_k[1] == pytest.approx(found.score.value)

    def test_repeats_of_a_seed_are_one_draw(self, tmp_path):
        once, thrice = tmp_path / "once", tmp_path / "thrice"
        once.mkdir()
        thrice.mkdir()
        one = compare(self.five(once))
        three = compare(self.five(thrice, repeats=3))
        assert [r.draws for r in three.rows] == [5, 5]
        assert [r.pass_at_k for r in three.rows] == [r.pass_at_k for r in one.rows]

    def test_a_seed_that_was_run_twice_is_one_draw(self, tmp_path):
        again = self.seeded(tmp_path, 0, name="again", started_unix=99.0)
        comparison = compare([*self.five(tmp_path)[:2], again])
        assert only(comparison).processes == 3
        assert [r.draws for r in comparison.rows] == [2, 2]
        assert list(only(comparison).pass_at_k) == [1, 2]

    def test_two_methods_share_the_baselines_draws(self, tmp_path):
        comparison = compare([*self.five(tmp_path), *self.five(tmp_path, method=PLD)])
        assert {r.label: r.draws for r in comparison.rows} == {"ar": 5, "pld": 5, "token_sd": 5}

    def test_the_sample_with_the_fewest_draws_bounds_k(self, tmp_path):
        sets = [*self.five(tmp_path)[:4], self.seeded(tmp_path, 4, samples=("s0", "s1"))]
        method = only(compare(sets))
        assert (method.samples, method.draws) == (3, 4)
        assert list(method.pass_at_k) == [1, 2]

    def test_one_draw_has_no_pass_at_k(self, tmp_path):
        method = only(compare([self.seeded(tmp_path, 0, repeats=3)]))
        assert (method.draws, method.pass_at_k) == (1, None)

    def test_greedy_seeds_are_one_draw(self, tmp_path):
        method = only(compare(self.five(tmp_path, temperature=0.0)))
        assert (method.draws, method.pass_at_k) == (1, None)

    @pytest.mark.parametrize(
        ("score", "name", "draws"), [(1.0, "exact_match", 5), (None, "pass_at_1", 0)]
    )
    def test_other_scores_have_no_pass_at_k(self, tmp_path, score, name, draws):
        method = only(compare(self.five(tmp_path, score=score, score_name=name)))
        assert (method.draws, method.pass_at_k) == (draws, None)

    def test_speed_is_paired_inside_each_seed(self, tmp_path):
        """Seeds write texts of 5 to 17 tokens; the method takes half the time of each."""
        speedup = only(compare(self.five(tmp_path, repeats=2))).speedup_e2e
        assert speedup.value == pytest.approx(2.0, rel=1e-6)
        assert speedup.noise_floor == pytest.approx(1.0, abs=1e-6)
        assert speedup.verdict == BETTER

    def test_two_texts_are_no_noise_floor(self, tmp_path):
        assert only(compare(self.five(tmp_path))).speedup_e2e.noise_floor is None


class TestSections:
    @pytest.fixture
    def two_tasks(self, tmp_path):
        return [
            result_set(
                tmp_path,
                simple_rows(task=task, category=category, speed=speed, started_unix=speed),
                metadata(task=task, task_digest=task),
                task,
            )
            for task, category, speed in (("math", "sums", 2.0), ("code", "code", 4.0))
        ]

    def test_by_task_ends_with_the_whole(self, two_tasks):
        comparison = compare(two_tasks, by="task")
        assert comparison.sections == ("math", "code", "overall")
        speedups = [r.speedup_e2e.value for r in comparison.rows if not r.is_baseline]
        assert speedups[:2] == pytest.approx([2.0, 4.0])
        assert speedups[2] == pytest.approx(2 / (1 / 2 + 1 / 4), rel=1e-6)

    def test_the_whole_treats_the_tasks_runs_as_one_pass(self, two_tasks):
        overall = compare(two_tasks, by="overall")
        assert overall.sections == ("overall",)
        assert only(overall).samples == 8
        assert only(overall).processes == 1

    def test_by_category(self, two_tasks):
        assert compare(two_tasks, by="category").sections == ("math / sums", "code", "overall")

    def test_a_single_section_is_not_said_twice(self, two_tasks):
        assert compare(two_tasks[:1]).sections == ("math",)

    def test_an_unknown_grouping(self, two_tasks):
        with pytest.raises(UsageError, match="Did you mean 'task'"):
            compare(two_tasks, by="tasks")

    def test_no_files(self):
        with pytest.raises(ResultsError):
            compare([])


class TestMeasurementsThatCannotBe:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("total_ns", 0),
            ("total_ns", -5),
            ("decode_ns", -1),
            ("new_tokens", -1),
            ("score", float("nan")),
        ],
    )
    def test_they_are_refused_by_name(self, tmp_path, name, value):
        rows = simple_rows()
        rows[3][name] = value
        with pytest.raises(ResultsError, match="cannot be") as refused:
            compare([result_set(tmp_path, rows, metadata())])
        assert name in refused.value.why and rows[3]["sample_id"] in refused.value.why

    def test_failed_measurements_are_not_looked_at(self, tmp_path):
        rows = simple_rows()
        rows[3] |= {"error": "stopped", "total_ns": 0}
        assert only(compare([result_set(tmp_path, rows, metadata())])).samples == 4


class TestComparability:
    CHANGES = {
        "model": {"model": "qwen3_8b"},
        "law": {"law_hash": "bb22"},
        "dtype": {"dtype": "bfloat16"},
        "device": {"device": "cuda:0 (H100)"},
        "threads": {"timing": {"threads": 4}},
        "engine": {"engine": "transformers"},
        "baseline": {"baseline": dataclasses.replace(AR, name="slow_ar")},
        "task": {"task_digest": "d2"},
        "scorer": {"scorer": {"exact_match": 2}},
        "max_new_tokens": {"config": {"max_new_tokens": 64}},
        "counting": {"timing": {"repeats": 3, "threads": 2, "counting": 2}},
        "load": {"timing": {"repeats": 3, "threads": 2, "load": "concurrency 32"}},
    }

    def pair_of(self, folder, name):
        rows = simple_rows()
        one = {"repeats": 3, "threads": 2, "load": "concurrency 1"}
        here = metadata(timing=one) if name == "load" else metadata()
        return [
            result_set(folder, rows, here, "here"),
            result_set(
                folder, simple_rows(started_unix=9.0), metadata(PLD, **self.CHANGES[name]), "there"
            ),
        ]

    @pytest.mark.parametrize("name", sorted(CHANGES))
    def test_a_difference_is_refused_with_its_name(self, tmp_path, name):
        with pytest.raises(NotComparable, match=f"--allow {name}") as refused:
            compare(self.pair_of(tmp_path, name))
        assert refused.value.exit_code == 3
        assert "here.parquet" in refused.value.what

    @pytest.mark.parametrize("name", sorted(CHANGES))
    def test_a_difference_that_is_allowed_carries_a_banner(self, tmp_path, name):
        comparison = compare(self.pair_of(tmp_path, name), allow={name})
        assert len(comparison.banners) == 1
        assert "Allowed difference" in comparison.banners[0]

    def test_grades_of_two_versions_meet_only_where_a_grade_depends_on_it(self, tmp_path):
        def graded(grade, name, **noise):
            rows = simple_rows(started_unix=len(name), fidelity=grade)
            return result_set(tmp_path, rows, metadata(PLD, noise=noise), name)

        old, new = graded("tie", "old"), graded("tie", "newer", fidelity_version=2)
        with pytest.raises(NotComparable, match="version 1 and version 2"):
            compare([old, new])
        compare([old, graded("identical", "other", fidelity_version=2)])

    def test_an_allowance_without_a_difference_says_nothing(self, tmp_path):
        result = result_set(tmp_path, simple_rows(), metadata())
        assert compare([result], allow={"device"}).banners == ()

    def test_an_unknown_allowance(self, tmp_path):
        with pytest.raises(UsageError, match="Did you mean 'device'"):
            compare(self.pair_of(tmp_path, "device"), allow={"devise"})

    @staticmethod
    def asked(number, digest):
        return simple_rows(started_unix=9.0 + number, prompt_digest=digest)

    def test_other_prompts_of_one_sample_are_refused(self, tmp_path):
        """A chat template that prints the day asks otherwise tomorrow."""
        days = {"monday": "d1d1", "tuesday": "d2d2"}
        sets = [
            result_set(
                tmp_path, simple_rows(started_unix=9.0 + n, prompt_digest=digest), metadata(), day
            )
            for n, (day, digest) in enumerate(days.items())
        ]
        with pytest.raises(NotComparable, match="--allow prompts") as refused:
            compare(sets)
        assert "asked otherwise" in refused.value.why
        allowed = compare(sets, allow={"prompts"})
        assert "Allowed difference" in allowed.banners[0]
        assert {r.label for r in allowed.rows if not r.is_baseline} == {
            "token_sd (monday)",
            "token_sd (tuesday)",
        }

    def test_prompts_that_nobody_recorded_are_no_difference(self, tmp_path):
        sets = [
            result_set(
                tmp_path, simple_rows(started_unix=9.0 + n, prompt_digest=digest), metadata(), name
            )
            for n, (name, digest) in enumerate({"old": None, "new": "d1d1"}.items())
        ]
        assert only(compare(sets)).processes == 2

    def test_runs_on_two_devices_are_never_pooled(self, tmp_path):
        sets = [
            result_set(tmp_path, simple_rows(), metadata(device="cpu"), "cpu"),
            result_set(
                tmp_path,
                simple_rows(speed=4.0, started_unix=9.0),
                metadata(device="cuda"),
                "cuda",
            ),
        ]
        comparison = compare(sets, allow={"device"})
        assert [r.label for r in comparison.rows] == [
            "ar (cpu)",
            "ar (cuda)",
            "token_sd (cuda)",
            "token_sd (cpu)",
        ]
        assert only(comparison, "token_sd (cuda)").speedup_e2e.value == pytest.approx(4, rel=1e-5)

    def test_a_file_without_a_baseline_stands_beside_one_with(self, tmp_path):
        alone = [r for r in simple_rows() if r["arm"] == METHOD]
        sets = [
            result_set(tmp_path, simple_rows(), metadata(), "both"),
            result_set(tmp_path, alone, metadata(PLD, baseline=None), "alone"),
        ]
        assert only(compare(sets), "pld").speedup_e2e is None

    def test_other_tasks_may_differ_in_what_belongs_to_a_task(self, tmp_path):
        sets = [
            result_set(tmp_path, simple_rows(), metadata(), "math"),
            result_set(
                tmp_path,
                simple_rows(task="code"),
                metadata(task="code", task_digest="d2", scorer={"pass_at_1": 3}),
                "code",
            ),
        ]
        assert compare(sets).banners == ()


class TestVerdict:
    @pytest.mark.parametrize(
        ("value", "low", "high", "p_value", "floor", "expected"),
        [
            (1.5, 1.4, 1.6, 0.001, 1.03, BETTER),
            (0.7, 0.6, 0.8, 0.001, 1.03, WORSE),
            (1.02, 1.01, 1.03, 0.001, 1.05, SAME),
            (1.0, 0.995, 1.005, 0.9, 1.0, SAME),
            (1.04, 1.01, 1.07, 0.001, 1.05, INCONCLUSIVE),
            (1.5, 0.9, 2.5, 0.2, 1.03, INCONCLUSIVE),
            (1.5, 1.01, 2.2, 0.2, 1.03, INCONCLUSIVE),
            (1.5, 1.4, 1.6, 0.001, None, INCONCLUSIVE),
        ],
        ids=[
            "clear gain",
            "clear loss",
            "inside the floor",
            "inside one percent",
            "below the floor and not surely inside",
            "wide",
            "lost to the number of comparisons",
            "no floor",
        ],
    )
    def test_verdicts(self, value, low, high, p_value, floor, expected):
        speedup = Speedup(value, Interval(low, high), p_value, p_value, floor, INCONCLUSIVE)
        assert verdict(speedup) == expected

    def test_many_rows_are_adjusted_together(self, tmp_path):
        sets = [
            result_set(
                tmp_path,
                job_rows(accepted=(number % 3, 2), started_unix=float(number)),
                metadata(MethodInfo(f"m{number}", exactness="exact")),
                f"m{number}",
            )
            for number in range(5)
        ]
        for entry in compare(sets).rows:
            if entry.speedup_e2e is not None:
                assert entry.speedup_e2e.adjusted_p_value >= entry.speedup_e2e.p_value

    def test_the_method_info_is_handed_on(self, tmp_path):
        comparison = compare([result_set(tmp_path, simple_rows(), metadata())])
        assert only(comparison).method == TOKEN_SD
