"""LaTeX tables: nothing in them is a command, and bold stands only where a verdict does."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest

from specbench.compare import compare
from specbench.report import latex
from specbench.stats import Interval
from tests.unit.report.pages import HOSTILE, picture_results, text_results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return text_results(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def overall(results):
    return compare(results, by="overall")


@pytest.fixture(scope="module")
def breakdown(results):
    return compare(results, by="category")


class TestValues:
    @pytest.mark.parametrize(
        ("value", "low", "high", "text"),
        [
            (2.05, 2.03, 2.08, "$2.05^{+0.03}_{-0.02}$"),
            (2.054, 2.031, 2.0801, "$2.05^{+0.04}_{-0.02}$"),
            (1.0, None, None, "$1.00$"),
            (1.0, 1.0, 1.0, "$1.00^{+0.00}_{-0.00}$"),
            (0.996, 0.9951, 0.9969, "$1.00^{+0.00}_{-0.01}$"),
            (1.5, 1.6, 1.7, "$1.50$ [1.60, 1.70]"),
        ],
    )
    def test_interval(self, value, low, high, text):
        assert latex.interval(value, low, high) == text

    @pytest.mark.parametrize("value", [1.0, 1.004, 1.005, 1.0149, 2.995])
    def test_what_is_printed_holds_the_interval(self, value):
        low, high = value - 0.0123, value + 0.0301
        text = latex.interval(value, low, high)
        shown, up, down = (float(part.strip("$^{}_+-")) for part in _parts(text))
        assert shown + up >= high - 1e-9
        assert shown - down <= low + 1e-9

    def test_bold(self):
        assert latex.interval(2.0, 1.9, 2.1, bold=True) == r"$\mathbf{2.00}^{+0.10}_{-0.10}$"

    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("a_b & c%", r"a\_b \& c\%"),
            (
                r"\input{x}$^~#",
                r"\textbackslash{}input\{x\}\$\textasciicircum{}"
                r"\textasciitilde{}\#",
            ),
            ("a\nb\x00", "a b"),
            ("±1.9%", r"$\pm$1.9\%"),
        ],
    )
    def test_escape(self, text, escaped):
        assert latex.escape(text) == escaped


class TestTables:
    def test_every_line_has_every_cell(self, overall, breakdown):
        for block in latex.render(overall, breakdown).split(r"\begin{tabular}")[1:]:
            lines = [line for line in block.splitlines() if line.endswith(r"\\")]
            assert len({line.replace(r"\&", "").count("&") for line in lines}) == 1
            columns = block[1 : block.index("}")]
            assert lines[0].count("&") == len(columns) - 1

    def test_the_headline_holds_class_interval_floor_and_sizes(self, overall):
        text = latex.render(overall)
        row = next(r for r in overall.rows if r.label == "typical_sd")
        line = next(line for line in text.splitlines() if line.startswith(r"typical\_sd"))
        assert "& lossy &" in line
        found = row.speedup_e2e
        assert latex.interval(found.value, *found.interval, bold=True) in line
        assert r"\%" in line
        assert "$n=12$ samples, 3 repeats, 1 process" in text
        assert "cpu" in text

    def test_bold_needs_a_verdict(self, overall):
        calm = replace(
            overall,
            rows=tuple(
                replace(row, speedup_e2e=row.speedup_e2e._replace(verdict="inconclusive"))
                if row.speedup_e2e
                else row
                for row in overall.rows
            ),
        )
        assert r"\mathbf" not in latex.render(calm)

    def test_bold_covers_what_the_interval_does_not_tell_apart(self, overall):
        def bold(low: float, high: float) -> list[str]:
            rows = []
            for row in overall.rows:
                if row.label == "token_sd (draft_length=6)":
                    found = row.speedup_e2e._replace(
                        value=2.0, interval=Interval(1.9, 2.1), verdict="better"
                    )
                    row = replace(row, speedup_e2e=found)
                elif row.label == "token_sd (draft_length=4)":
                    found = row.speedup_e2e._replace(
                        value=1.8, interval=Interval(low, high), verdict="better"
                    )
                    row = replace(row, speedup_e2e=found)
                elif row.speedup_e2e:
                    row = replace(row, speedup_e2e=row.speedup_e2e._replace(verdict="same"))
                rows.append(row)
            text = latex.render(replace(overall, rows=tuple(rows)))
            return [line.partition(" &")[0] for line in text.splitlines() if r"\mathbf" in line]

        fast, slow = r"token\_sd (draft\_length=6)", r"token\_sd (draft\_length=4)"
        assert bold(1.7, 1.89) == [fast]
        assert set(bold(1.7, 1.91)) == {fast, slow}

    def test_pictures_have_their_own_columns(self, tmp_path):
        text = latex.render(compare(picture_results(tmp_path), by="overall"))
        assert "& NFE & tok/NFE & rules" in text
        assert "MAL" not in text

    def test_hostile_names_are_no_commands(self, overall):
        rows = tuple(replace(row, label=rf"\input{{x}} {HOSTILE}") for row in overall.rows)
        text = latex.render(replace(overall, rows=rows))
        assert r"\input" not in text.replace(r"\textbackslash{}input", "")

    def test_it_compiles(self, overall, breakdown, tmp_path):
        program = shutil.which("pdflatex")
        if program is None:
            pytest.skip("there is no pdflatex on this machine")
        body = latex.render(overall, breakdown)
        document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        (tmp_path / "t.tex").write_text(f"{document}{body}\\end{{document}}\n")
        command = [program, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]


def _parts(text: str) -> list[str]:
    return text.strip("$").replace("_{", "^{").split("^{")
