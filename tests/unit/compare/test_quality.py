"""Metrics of pictures in a comparison: means, paired differences, whole sets and their floors."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from specbench.compare import compare
from specbench.compare.quality import category_mean
from specbench.errors import NotComparable
from specbench.report import csv, json, markdown, table
from specbench.schema.result import BASELINE, METHOD, MethodInfo
from tests.unit.compare.factory import (
    TOKEN_SD,
    draft_rounds,
    metadata,
    plain_rounds,
    result_set,
    row,
)

RULES = {
    "title": "Rules",
    "unit": "",
    "better": "higher",
    "average": "categories",
    "version": 1,
    "protocol": "palette",
    "kind": "picture",
}
CLIP = {**RULES, "title": "CLIP", "average": "pictures", "protocol": "ViT-B/32"}
FID = {**CLIP, "title": "FID", "better": "lower", "protocol": "clean", "kind": "corpus"}
GSD = MethodInfo("gsd", "Grouped", "lossy", knob="group")


def value_of(fid, n=300, floor=161.0):
    return {"value": fid, "n": n, "floor": floor, "error": None, "reference": "world"}


def picture_rows(values, repeats=2, further=False):
    """Rows of both arms; `values` are (category, baseline, method) of each picture."""
    rows = []
    for number, (category, plain, fast) in enumerate(values):
        name = f"s{number // 2}#{number % 2}" if further and number % 2 else f"s{number}"
        if further and number % 2 == 0:
            name = f"s{number // 2}"
        for repeat in range(repeats):
            for arm, rounds, quality in (
                (BASELINE, plain_rounds(7), plain),
                (METHOD, draft_rounds([2, 2]), fast),
            ):
                about = {"category": category, "fidelity": None, "score": None, "score_name": None}
                if repeat == 0:
                    about["quality"] = {"rules": quality, "clip": 10 * quality}
                    about["picture"] = f"job/{name}.{arm}.png"
                rows.append(row(arm, name, repeat, rounds, **about))
    return rows


def picture_set(folder, values, name="job", method=TOKEN_SD, fid=(571.0, 594.0), **changes):
    about = metadata(
        method,
        metrics=changes.pop("metrics", {"rules": RULES, "clip": CLIP, "fid": FID}),
        corpus={BASELINE: {"fid": value_of(fid[0])}, METHOD: {"fid": value_of(fid[1])}},
        config={
            "method": {"name": method.name, "parameters": {}, "decoder": {}},
            "model": {"modality": "image"},
        },
        temperature=1.0,
        **changes.pop("about", {}),
    )
    return result_set(folder, picture_rows(values, **changes), about, name)


VALUES = [("one", 1.0, 1.0), ("one", 0.0, 1.0), ("one", 1.0, 1.0), ("two", 0.0, 0.0)]
VALUES += [("two", 1.0, 0.0)]


def test_a_mean_over_pictures_and_one_over_categories(tmp_path):
    comparison = compare([picture_set(tmp_path, VALUES)])
    baseline, method = comparison.rows
    assert baseline.quality["clip"].value.value == pytest.approx(10 * 3 / 5)
    assert baseline.quality["rules"].value.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert method.quality["rules"].categories == {"one": 1.0, "two": 0.0}
    assert method.quality["clip"].difference.value == pytest.approx(0.0)
    assert method.quality["rules"].difference.value == pytest.approx((1 / 3 - 1 / 2) / 2)
    assert baseline.quality["rules"].difference is None
    assert method.quality["rules"].pictures == 5


def test_pictures_of_one_prompt_are_one_observation(tmp_path):
    values = [("one", 1.0, 1.0), ("one", 0.0, 0.0)] * 6
    (_, method) = compare([picture_set(tmp_path, values, further=True)]).rows
    figure = method.quality["clip"]
    assert (figure.value.n, figure.pictures) == (6, 12)
    assert figure.value.value == pytest.approx(5.0)


def test_a_section_of_a_category_has_its_own_means_and_no_whole_sets(tmp_path):
    comparison = compare([picture_set(tmp_path, VALUES)], by="category")
    (_, one) = comparison.section("tiny_math / one")
    assert one.quality["rules"].value.value == 1.0
    assert one.corpus == {}


def test_whole_sets_stand_with_floor_and_difference(tmp_path):
    (baseline, method) = compare([picture_set(tmp_path, VALUES)]).rows
    assert baseline.corpus["fid"].difference is None
    figure = method.corpus["fid"]
    assert (figure.value, figure.n, figure.floor, figure.difference) == (594.0, 300, 161.0, 23.0)


def test_sets_of_two_seeds_are_averaged_with_their_spread(tmp_path):
    sets = [
        picture_set(tmp_path, VALUES, name, fid=(571.0, fid), about={"job_id": name})
        for name, fid in (("a", 590.0), ("b", 600.0))
    ]
    (_, method) = compare(sets).rows
    figure = method.corpus["fid"]
    assert (figure.value, figure.files) == (595.0, 2)
    assert figure.error == pytest.approx(np.std([590, 600], ddof=1) / np.sqrt(2))


def test_sets_of_two_tasks_are_not_pooled(tmp_path):
    one = picture_set(tmp_path, VALUES, "a")
    rows = [{**entry, "task": "other"} for entry in picture_rows(VALUES)]
    about = replace(one.metadata, task="other", task_digest="d2", job_id="b")
    comparison = compare([one, result_set(tmp_path, rows, about, "b")])
    (_, overall) = comparison.section("overall")
    assert overall.corpus == {} and overall.quality["clip"].value.n == 10
    (_, single) = comparison.section("other")
    assert single.corpus["fid"].value == 594.0


def test_a_difference_under_the_floor_is_said_so(tmp_path):
    below = compare([picture_set(tmp_path, VALUES)]).warnings
    assert any("fid differs from the baseline's by less than the floor of 161" in w for w in below)
    above = compare([picture_set(tmp_path, VALUES, fid=(571.0, 787.0))]).warnings
    assert not any("floor of" in warning for warning in above)


def test_a_lossy_method_with_quality_has_a_score(tmp_path):
    warnings = compare([picture_set(tmp_path, VALUES, method=GSD)]).warnings
    assert not any("cost in quality" in warning for warning in warnings)
    bare = picture_set(tmp_path, VALUES, "bare", method=GSD, metrics={})
    assert any("cost in quality" in warning for warning in compare([bare]).warnings)


@pytest.mark.parametrize("change", [{"protocol": "ViT-B/16"}, {"version": 2}])
def test_one_metric_computed_in_two_ways_is_refused(tmp_path, change):
    metrics = {"rules": RULES, "clip": {**CLIP, **change}, "fid": FID}
    sets = [
        picture_set(tmp_path, VALUES, "a"),
        picture_set(tmp_path, VALUES, "b", method=GSD, metrics=metrics),
    ]
    with pytest.raises(NotComparable) as caught:
        compare(sets)
    assert "clip: ViT-B/" in caught.value.why and "--allow quality" in caught.value.fix
    assert len(compare(sets, allow=["quality"]).banners) == 1


def test_a_metric_that_one_file_lacks_is_no_difference(tmp_path):
    sets = [
        picture_set(tmp_path, VALUES, "a"),
        picture_set(tmp_path, VALUES, "b", method=GSD, metrics={"clip": CLIP}),
    ]
    assert compare(sets).banners == ()


def test_the_mean_of_categories_has_the_error_of_a_stratified_sample():
    generator = np.random.default_rng(0)
    categories = np.array(["a"] * 50 + ["b"] * 200)
    inside = 0
    for _ in range(400):
        values = np.where(categories == "a", 3.0, -1.0) + generator.normal(size=250)
        estimate = category_mean(values, categories)
        inside += not estimate.interval.excludes(1.0)
    assert 365 <= inside <= 393  # 380 +- 3 standard deviations of a binomial count
    flat = category_mean([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])
    assert flat.value == 0.5 and flat.interval is not None
    assert category_mean([1.0], ["a"]).interval is None
    assert category_mean([], []) is None


class TestReports:
    def test_a_table_of_pictures_shows_forwards_and_quality(self, tmp_path):
        comparison = compare([picture_set(tmp_path, VALUES, method=GSD)])
        console = Console(width=220, record=True, file=io.StringIO())
        console.print(table.render(comparison, width=220))
        text = console.export_text()
        for title in ("NFE", "tok/NFE", "rules", "clip", "fid"):
            assert title in text
        assert "MAL" not in text and "TTFT" not in text
        assert "594 (floor 161, n=300)" in text and "0.500 (-0.083" in text
        assert "rules: higher is better" in text and "fid: lower is better" in text

    def test_metrics_that_do_not_fit_stand_in_a_table_of_their_own(self, tmp_path):
        comparison = compare([picture_set(tmp_path, VALUES, method=GSD)])
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(table.render(comparison, width=80))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= 80
        assert text.count("gsd  ") >= 2 and "594 (floor 161, n=300)" in text
        left_out = text.partition("Left out")[2].partition(".")[0]
        assert not {"rules", "clip", "fid"} & set(left_out.replace(",", " ").split())

    def test_markdown_and_csv_and_json_hold_the_metrics(self, tmp_path):
        comparison = compare([picture_set(tmp_path, VALUES)])
        text = markdown.render(comparison)
        assert "| NFE | tok/NFE |" in text.replace("--: ", "") and "594 (floor 161" in text
        header = csv.render(comparison).splitlines()[0].split(",")
        assert "corpus_fid_value" in header and "quality_clip_difference_interval_low" in header
        assert '"floor": 161.0' in json.render(comparison)

    def test_a_table_of_text_stays_as_it_was(self, tmp_path):
        from tests.unit.compare.factory import job_rows

        comparison = compare([result_set(tmp_path, job_rows(), metadata())])
        assert csv.render(comparison).splitlines()[0].split(",") == list(csv.COLUMNS)
        assert "NFE" not in markdown.render(comparison)
