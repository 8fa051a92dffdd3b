"""The page as a file: what it says, that it is one file, and that data in it stays data."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from specbench.errors import NotComparable, ResultsError
from specbench.report import figures, latex, plots
from specbench.report.drawing import MARKERS, PAGE, style
from specbench.report.files import check_writable, write_bytes
from specbench.report.html import gather, outputs, render, rows, svg
from specbench.report.html.charts import speedup_chart, time_chart, trade_chart
from specbench.report.html.content import Content
from specbench.schema.result import MethodInfo
from specbench.store import read_parquet
from specbench.store.png import save_png
from tests.unit.compare.factory import job_rows, metadata, result_set
from tests.unit.report.pages import HOSTILE, PLD, picture_results, text_results

VOID = {"meta", "link", "input", "img", "br", "circle", "rect", "polygon", "path", "line"}


class _Page(HTMLParser):
    """What a browser would make of a page, as far as the tests ask."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def parsed(page: str) -> _Page:
    found = _Page()
    found.feed(page)
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return text_results(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def content(results):
    return gather(results)


@pytest.fixture(scope="module")
def page(content):
    return render(content)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return gather(picture_results(tmp_path_factory.mktemp("pictures")))


class TestPage:
    def test_every_element_is_closed(self, page):
        found = parsed(page)
        assert (found.wrong, found.open) == ([], [])

    def test_the_same_content_gives_the_same_bytes(self, results, page):
        assert render(gather(results)) == page

    def test_headings_descend_one_step_at_a_time(self, page):
        levels = [int(tag[1]) for tag, _ in parsed(page).tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))

    def test_ids_are_unique_and_every_reference_has_one(self, page):
        tags = parsed(page).tags
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        wanted = [
            name
            for _, attributes in tags
            for key in ("aria-labelledby", "for")
            for name in (attributes.get(key) or "").split()
        ]
        wanted += [
            attributes["href"][1:]
            for tag, attributes in tags
            if tag == "a" and attributes["href"].startswith("#")
        ]
        assert set(wanted) <= set(ids)

    def test_nothing_points_outside(self, page):
        for tag, attributes in parsed(page).tags:
            for key in ("src", "href", "srcset", "action", "data", "poster"):
                value = attributes.get(key)
                assert value is None or value.startswith(("#", "data:")), (tag, key, value)
        assert "url(" not in page
        assert "@import" not in page

    def test_the_policy_names_what_stands_inside_and_nothing_else(self, page):
        import base64
        import hashlib

        tags = parsed(page).tags
        policy = next(
            attributes["content"]
            for tag, attributes in tags
            if attributes.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "unsafe" not in policy
        for tag in ("style", "script"):
            bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
            assert len(bodies) == 1
            digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert not any("style" in attributes for _, attributes in tags)
        assert not any(key.startswith("on") for _, attributes in tags for key in attributes)

    def test_every_chart_has_a_name_a_description_and_its_numbers(self, page):
        drawings = page.count('role="img"')
        assert drawings == len(re.findall(r"<desc id=\"[a-z0-9-]+\">[^<]", page)) > 5
        figures_found = re.findall(r'<figure class="figure".*?</figure>', page, flags=re.DOTALL)
        assert len(figures_found) == 5
        assert all("<table" in found and "<figcaption>" in found for found in figures_found)

    def test_every_table_has_a_caption_and_scopes(self, page):
        tags = parsed(page).tags
        assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags)
        assert all("scope" in attributes for tag, attributes in tags if tag == "th")

    def test_sections_in_reading_order(self, page):
        ids = re.findall(r'<section id="([a-z]+)"', page)
        assert ids == [
            "results",
            "speedup",
            "acceptance",
            "time",
            "quality",
            "breakdown",
            "prediction",
            "samples",
            "failures",
            "definitions",
            "provenance",
            "reproduce",
        ]


class TestContent:
    def test_headline_says_what_compare_says(self, content, page):
        row = next(r for r in content.rows if r.label == "token_sd (draft_length=4)")
        found = row.speedup_e2e
        low, high = found.interval
        assert f"{found.value:.2f}x [{low:.2f}, {high:.2f}]" in page
        assert f"±{100 * (found.noise_floor - 1):.1f}%" in page
        assert "token_sd (draft_length=6)" in page

    def test_a_run_too_small_for_any_verdict_says_so_shortly(self, content):
        row = content.rows[1]
        vast = replace(row, speedup_e2e=row.speedup_e2e._replace(detectable=5e14))
        table = rows.headline(replace(content.overall, rows=(vast,)))
        assert "over 10x" in [cell.text for cell in table.lines[0].cells]

    def test_findings_name_the_fastest_of_each_class(self, content):
        text = " ".join(content.findings)
        assert "4 methods against ar" in text
        for name in (
            "Fastest exact method: token_sd (draft_length=6)",
            "Fastest greedy method: jacobi",
            "Fastest lossy method: typical_sd",
        ):
            assert name in text

    def test_a_broken_claim_is_a_finding(self, tmp_path):
        rows = job_rows(6, 2)
        rows[1]["fidelity"] = "wrong"
        found = gather([result_set(tmp_path, rows, metadata())])
        assert "token_sd calls itself exact, and 1 of 6 outputs differ" in " ".join(found.findings)

    def test_breakdown_only_where_it_says_more(self, results, tmp_path):
        assert gather(results).breakdown.sections == (
            "tiny_math / code",
            "tiny_math / math",
            "overall",
        )
        assert gather(results, by="task").breakdown is None
        assert gather(results, by="overall").breakdown is None
        assert 'id="breakdown"' not in render(gather(results, by="overall"))

    def test_failures_are_listed_with_their_error(self, content, page):
        (failure,) = content.failures
        assert (failure.label, failure.error, failure.samples) == ("jacobi", HOSTILE, ("s011",))
        assert "Failed measurements" in page

    def test_provenance_names_machine_revision_and_digests(self, content, results):
        import hashlib

        known = content.provenance
        assert ("device", "cpu") in known.common
        assert known.revisions == ("abc123 (with uncommitted changes)",)
        assert known.commands == ("specbench run --multirun 'method=a b'",)
        digest = hashlib.sha256(results[0].path.read_bytes()).hexdigest()
        assert known.files.lines[0].cells[-1].more == digest

    def test_imported_files_say_what_they_lack(self, tmp_path):
        about = metadata(
            source={"format": "spec-bench", "unknown": ["repeats"], "odd": ["an index is short"]}
        )
        found = gather([result_set(tmp_path, job_rows(4, 1), about)])
        page = render(found)
        assert "mean tok/s" in [column.title for column in rows.headline(found.overall).columns]
        assert "was imported (spec-bench)" in page
        assert "Not known: repeats" in page
        assert "Read otherwise than written: an index is short" in page

    def test_definitions_come_from_the_metrics(self, content):
        names = [fact.name.partition(":")[0] for fact in content.definitions]
        assert {"speedup_e2e", "mal", "predicted_speedup", "fidelity"} <= set(names)

    def test_a_class_that_is_not_known_is_said_everywhere(self, tmp_path):
        about = metadata(MethodInfo("other", exactness="unknown"))
        found = gather([result_set(tmp_path, job_rows(4, 2), about)])
        page = render(found)
        assert "Fastest method of unknown class: other" in page
        assert '<input type="checkbox" value="unknown" checked>' in page
        assert 'class="shape unknown' in page
        assert 'class="mark" data-label="other" data-class="unknown"' in page
        assert '<div class="panel" data-label="other"' in page
        assert "speedup.svg" in plots.draw(found.overall)
        assert "other & unknown &" in latex.render(found.overall)

    def test_no_baseline_is_said_and_draws_no_speedup(self, tmp_path):
        rows = [r for r in job_rows(4, 2) if r["arm"] == "method"]
        page = render(gather([result_set(tmp_path, rows, metadata(baseline=None))]))
        assert "measured without a baseline" in page
        assert 'id="speedup"' not in page

    def test_different_rulers_are_refused_unless_allowed(self, results, tmp_path):
        other = result_set(tmp_path, job_rows(4, 2), metadata(PLD, device="gpu"))
        with pytest.raises(NotComparable):
            gather([results[0], other])
        page = render(gather([results[0], other], allow={"device"}))
        assert "Allowed difference: the devices differ" in page


class TestHostileData:
    def test_no_text_becomes_markup_or_a_template(self, page):
        assert page.count("<script") == 1
        assert "onerror=&#34;" in page
        assert not any(tag == "img" for tag, _ in parsed(page).tags)
        assert "{{ 7 * 7 }}" in page
        assert HOSTILE in "".join(parsed(page).text)

    def test_names_and_metadata_are_escaped_too(self, tmp_path):
        method = replace(PLD, name='p"><script>x</script>')
        about = metadata(
            method,
            task=HOSTILE,
            device=HOSTILE,
            provenance={"command": HOSTILE, HOSTILE: HOSTILE, "git": {"revision": HOSTILE}},
        )
        rows = job_rows(4, 2, task=HOSTILE, category=HOSTILE, sample_id=HOSTILE)
        for number, entry in enumerate(rows):
            entry["sample_id"] = f"{HOSTILE}{number // 4}"
        page = render(gather([result_set(tmp_path, rows, about)], title=HOSTILE))
        found = parsed(page)
        assert (found.wrong, found.open) == ([], [])
        assert sum(tag == "script" for tag, _ in found.tags) == 1
        assert not any(tag in ("img", "b") for tag, _ in found.tags)

    def test_a_picture_outside_of_the_results_is_not_read(self, tmp_path):
        inside = tmp_path / "results"
        inside.mkdir()
        save_png(tmp_path / "secret.png", np.zeros((8, 8, 3), dtype=np.uint8))
        (result,) = picture_results(inside)
        table = result.table.to_pylist()
        for entry in table:
            entry["picture"] = "../secret.png" if entry["picture"] else None
            entry["quality"] = dict(entry["quality"] or {}) or None
        hostile = result_set(inside, table, result.metadata, "hostile")
        found = outputs.collect([hostile], {})
        assert not any(wrote.picture for sample in found.samples for wrote in sample.outputs)


class TestOutputs:
    def test_equal_outputs_are_shown_once(self, content):
        sample = content.outputs.samples[0]
        assert [wrote.labels for wrote in sample.outputs] == [
            ("ar", "token_sd (draft_length=4)", "token_sd (draft_length=6)", "jacobi"),
            ("typical_sd",),
        ]
        assert (sample.differing, sample.methods) == (1, 4)

    def test_a_method_is_held_against_the_baseline_of_its_own_file(self, tmp_path):
        written = []
        for number in range(2):
            rows = job_rows(2, 1, started_unix=float(number))
            for entry in rows:
                entry["output_text"] = [f"text {number}"]
                entry["output_ids"] = [[number]]
            about = metadata(parameters={"draft_length": number})
            written.append(result_set(tmp_path, rows, about, f"job{number}"))
        for sample in gather(written).outputs.samples:
            assert sample.differing == 0
            assert [wrote.is_baseline for wrote in sample.outputs] == [True, True]

    def test_the_first_difference_is_marked(self, content):
        wrote = next(
            wrote
            for sample in content.outputs.samples
            for wrote in sample.outputs
            if wrote.labels == ("typical_sd",)
        )
        assert wrote.same.endswith(": ")
        assert wrote.differing.startswith("otherwise")
        assert wrote.token == 3

    @pytest.mark.parametrize(
        ("one", "other", "token"),
        [
            (((1, 2, 3),), ((1, 2, 3),), None),
            (((1, 2, 3),), ((1, 9, 3),), 2),
            (((1, 2),), ((1, 2, 3),), 3),
            (((1,), (2, 3)), ((1,), (2, 4)), 3),
        ],
    )
    def test_the_token_where_two_outputs_part(self, one, other, token):
        assert outputs._first_token(one, other) == token

    def test_long_outputs_are_cut_around_the_difference_and_say_so(self, tmp_path):
        rows = job_rows(2, 1)
        for entry in rows:
            tail = "B" if entry["arm"] == "method" else "A"
            entry["output_text"] = ["x" * 5000 + tail + "y" * 5000]
            entry["output_ids"] = [[1 if tail == "A" else 2]]
        (found,) = [gather([result_set(tmp_path, rows, metadata())])]
        wrote = found.outputs.samples[0].outputs[1]
        before, after = wrote.left_out
        assert wrote.differing.startswith("By")
        assert before + len(wrote.same) == 5000
        assert before + len(wrote.same) + len(wrote.differing) + after == 10_001
        assert f"[{before} characters left out]" in render(found)

    def test_samples_that_do_not_fit_are_counted(self, tmp_path):
        found = gather([result_set(tmp_path, job_rows(60, 1), metadata())])
        assert len(found.outputs.samples) == outputs.MOST_SAMPLES
        assert found.outputs.available == 60
        assert "24 of 60 samples" in render(found)

    def test_those_that_differ_come_first(self, tmp_path):
        rows = job_rows(60, 1)
        for entry in rows:
            if entry["arm"] == "method" and entry["sample_id"] == "s055":
                entry["output_text"], entry["output_ids"] = ["other"], [[7]]
        found = gather([result_set(tmp_path, rows, metadata())])
        assert found.outputs.samples[0].sample == "s055"
        assert found.outputs.samples[0].differing == 1

    def test_pictures_are_data_and_equal_ones_shown_once(self, pictures):
        samples = {sample.sample: sample for sample in pictures.outputs.samples}
        assert [wrote.labels for wrote in samples["s000"].outputs] == [("ar", "token_sd")]
        assert len(samples["s001"].outputs) == 2
        page = render(pictures)
        images = [attributes for tag, attributes in parsed(page).tags if tag == "img"]
        assert len(images) == 7
        assert all(image["src"].startswith("data:image/png;base64,") for image in images)
        assert all("s00" in image["alt"] for image in images)

    def test_large_pictures_are_reduced(self, tmp_path):
        import base64
        import io

        from PIL import Image

        save_png(tmp_path / "a.png", np.zeros((300, 600, 3), dtype=np.uint8))
        uri = outputs.picture_uri(tmp_path / "a.png")
        data = base64.b64decode(uri.partition(",")[2])
        assert Image.open(io.BytesIO(data)).size == (256, 128)

    def test_missing_pictures_are_counted(self, tmp_path):
        (result,) = picture_results(tmp_path)
        for path in (tmp_path / "job").glob("*.png"):
            path.unlink()
        found = gather([read_parquet(result.path)])
        assert found.outputs.samples == ()
        assert found.outputs.missing_pictures == 7
        assert "7 pictures" in render(found)

    def test_a_broken_picture_is_missing_and_no_crash(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
        assert outputs.picture_uri(tmp_path / "a.png") == ""


@pytest.fixture
def look():
    """The look of the page, in which the tests of charts draw."""
    with style(PAGE):
        yield PAGE


def ticks_of(drawn: str) -> list[float]:
    return [float(value) for value in re.findall(r">([0-9.e+-]+)x</text>", drawn)]


class TestCharts:
    @pytest.mark.parametrize("value", [1.0, 1e-6, 1e6, 1.0001])
    def test_ticks_of_odd_ranges_are_few(self, content, look, value):
        mark = figures.speedups(content.rows)[0]._replace(value=value, low=value, high=value)
        assert 1 <= len(ticks_of(speedup_chart([mark]).panels[0].drawing)) <= 14

    def test_one_endless_interval_does_not_hide_the_others(self, content, look):
        marks = figures.speedups(content.rows)
        vast = [marks[0]._replace(low=1e-9, high=1e9), *marks[1:]]
        ticks = ticks_of(speedup_chart(vast).panels[0].drawing)
        assert len(ticks) > 4
        assert max(ticks) <= 10

    def test_elements_escape_text_and_attributes(self):
        drawn = svg.element("text", "<b>&", class_='x" onload="y', data_label=None)
        assert drawn == '<text class="x&#34; onload=&#34;y">&lt;b&gt;&amp;</text>'

    def test_classes_differ_by_shape(self, content, look):
        mark = figures.speedups(content.rows)[0]
        shapes = set()
        for name in figures.EXACTNESS:
            drawn = speedup_chart([mark._replace(exactness=name)]).panels[0].drawing
            shapes.add(re.findall(r'<path d="([^"]*)" transform', drawn)[-1])
        assert len(shapes) == len(set(MARKERS.values())) == 4

    def test_the_marks_of_a_method_are_one_group_with_its_name_and_tip(self, content, look):
        marks = figures.speedups(content.rows)
        drawn = speedup_chart(marks).panels[0].drawing
        groups = re.findall(r'<g class="mark" data-label="([^"]*)" data-class="(\w+)">', drawn)
        assert sorted(groups) == sorted((mark.label, mark.exactness) for mark in marks)
        assert drawn.count("<title>") == len(marks)
        assert f"<title>{marks[0].label} ({marks[0].exactness})\n" in drawn

    def test_every_colour_is_one_of_the_style_sheet(self, page):
        """So that a chart is readable in the dark and on paper."""
        drawings = "".join(re.findall(r"<svg viewBox.*?</svg>", page, flags=re.DOTALL))
        assert set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawings)) >= {"var(--exact)"}
        assert "#" not in "".join(re.findall(r'(?:fill|stroke)="([^"]*)"', drawings))
        sheet = page[page.index("<style>") : page.index("</style>")]
        assert all(f"--{name}:" in sheet for name in re.findall(r"var\(--(\w+)\)", drawings))

    def test_frontier(self, look):
        points = [("a", 1.0, 0.0), ("b", 2.0, -0.1), ("c", 1.5, -0.2), ("d", 2.0, -0.1)]
        known = [
            figures.TradePoint(n, "exact", False, s, q, None, None, False) for n, s, q in points
        ]
        trade = figures._trade("score", "score", True, None, known)
        assert [p.label for p in trade.points if p.on_frontier] == ["a", "b", "d"]
        lower = figures._trade("fd", "fd", False, 0.05, known)
        assert [p.label for p in lower.points if p.on_frontier] == ["b", "c", "d"]
        assert "lower is better" in trade_chart(lower).panels[0].drawing

    def test_time_split_is_per_token(self, content):
        splits = {split.label: split for split in figures.time_splits(content.rows)}
        assert splits["ar"][2:] == (0.0, 4.0, 1.0, 0.0)
        expected = [part / 3.25 for part in (1.0, 4.0, 1.0, 0.0)]
        assert splits["token_sd (draft_length=4)"][2:] == pytest.approx(expected)

    def test_sampling_is_drawn_where_a_device_was_timed(self, content, look):
        plain = figures.time_splits(content.rows)
        assert "sampling" not in str(time_chart(plain).keys)
        drawn = time_chart([*plain, figures.TimeSplit("gpu", "exact", 0.0, 4.0, 0.5, 0.25)])
        assert drawn is not None and "var(--sampling)" in drawn.panels[0].drawing
        assert drawn.table.lines[-1].cells[-1].value == 4.75
        assert [column.title for column in drawn.table.columns[1:-1]] == list(
            figures.work_of([*plain, figures.TimeSplit("gpu", "exact", 0.0, 4.0, 0.5, 0.25)])
        )

    def test_histogram_shares_sum_to_one(self, content):
        for found in figures.histograms(content.rows):
            assert sum(found.shares) == pytest.approx(1.0)


class TestSize:
    def test_sixty_methods_on_several_tasks_stay_small(self, content):
        many: Content = replace(
            content,
            overall=replace(content.overall, rows=_repeated(content.overall.rows, 15)),
            breakdown=replace(content.breakdown, rows=_repeated(content.breakdown.rows, 15)),
        )
        page = render(many)
        assert page.count('<div class="panel"') >= 60
        assert len(page.encode()) < 5_000_000


def _repeated(rows, times):
    return tuple(
        row if row.is_baseline else replace(row, label=f"{row.label} {number}")
        for number in range(times)
        for row in rows
        if number == 0 or not row.is_baseline
    )


class TestFiles:
    def test_a_failed_write_leaves_what_was_there(self, tmp_path, monkeypatch):
        path = tmp_path / "report.html"
        path.write_text("old")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(ResultsError, match="Cannot write") as caught:
            write_bytes(path, b"new")
        assert caught.value.why == "No space left on device"
        assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
        assert path.read_text() == "old"

    def test_folders_and_files_in_the_way_are_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path in (tmp_path, tmp_path / "file" / "report.html"):
            with pytest.raises(ResultsError):
                check_writable(path)
        check_writable(Path(tmp_path / "new" / "report.html"))
