"""Plots for papers: all that there are values for, of a column's width, the same bytes twice."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree

import pytest
from PIL import Image

from specbench.compare import compare
from specbench.errors import ResultsError
from specbench.report import drawing, plots
from tests.unit.compare.factory import job_rows, metadata, result_set
from tests.unit.report.pages import picture_results, text_results


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compare(text_results(tmp_path_factory.mktemp("text")), by="overall")


@pytest.fixture(scope="module")
def drawn(comparison):
    return plots.draw(comparison)


def test_every_plot_in_both_formats(drawn):
    names = {
        "speedup",
        "acceptance_histogram",
        "acceptance_by_position",
        "time_split",
        "predicted_speedup",
        "quality_score",
    }
    assert set(drawn) == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_one_column_wide_at_print_resolution(drawn):
    for name in ("speedup.png", "time_split.png"):
        width, _ = Image.open(io.BytesIO(drawn[name])).size
        assert width == round(300 * drawing.SINGLE)


def test_vector_plots_are_whole_and_hold_no_fonts_and_no_dates(drawn):
    for name, content in drawn.items():
        if name.endswith(".svg"):
            text = content.decode()
            xml.etree.ElementTree.fromstring(text)
            assert "<text" not in text
            assert "font-family" not in text
            assert not re.search(r"20\d\d-\d\d-\d\d", text)


def test_the_same_bytes_again_whatever_the_users_own_settings_are(comparison, drawn):
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.dpi": 10}):
        assert plots.draw(comparison) == drawn
        assert matplotlib.rcParams["font.size"] == 30


def test_metrics_of_pictures_have_a_plot_each(tmp_path):
    assert "quality_rules.svg" in plots.draw(compare(picture_results(tmp_path), by="overall"))


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path):
    about = metadata(parameters={})
    rows = job_rows(4, 2)
    for entry in rows:
        entry["score_name"] = r"$\frac{a}{"
    assert "speedup.png" in plots.draw(compare([result_set(tmp_path, rows, about)], by="overall"))


def test_nothing_to_plot_is_said(tmp_path):
    rows = [r for r in job_rows(2, 1) if r["arm"] == "method"]
    for entry in rows:
        entry["rounds"] = entry["rounds"][:1]
        entry["decode_ns"] = 0
    result = result_set(tmp_path, rows, metadata(baseline=None))
    with pytest.raises(ResultsError, match="nothing to plot"):
        plots.draw(compare([result], by="overall"))


def test_trainings_are_drawn_as_lines() -> None:
    found = {"a": [(0, 0.2), (50, 0.5)], "b": [(0, 0.1), (40, 0.9)]}
    with drawing.style(drawing.PAPER):
        chart = plots.trainings(found, drawing.PAPER)
        assert chart.saved("png").startswith(b"\x89PNG")
    drawn = [line.get_xydata().tolist() for line in chart.axes.lines]
    assert drawn == [[[0, 0.2], [50, 0.5]], [[0, 0.1], [40, 0.9]]]
