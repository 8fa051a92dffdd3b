"""Every form of a report, against golden files and against what it promises.

`make golden` writes the golden files anew; read the difference before keeping it.
"""

from __future__ import annotations

import csv as csv_module
import io
import json as json_module
import os
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from specbench.compare import compare
from specbench.report import csv, json, markdown, table
from specbench.schema.result import METHOD, MethodInfo
from tests.unit.compare.factory import (
    TOKEN_SD,
    failed_row,
    job_rows,
    metadata,
    result_set,
)

GOLDEN = Path(__file__).parent / "golden"
PLD = MethodInfo("pld", "Prompt lookup", "exact")
LOSSY = MethodInfo("typical", "Typical acceptance", "lossy", knob="epsilon")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two draft lengths, one method with a failure and ties, one lossy one, two tasks."""
    folder = tmp_path_factory.mktemp("results")
    jobs = [
        (TOKEN_SD, (4, 2, 0, 3), "tiny_math", {"draft_length": 4}),
        (TOKEN_SD, (6, 2, 0, 5), "tiny_math", {"draft_length": 6}),
        (PLD, (0, 0, 1, 0), "tiny_math", {}),
        (LOSSY, (4, 4, 3, 3), "tiny_math", {}),
        (TOKEN_SD, (4, 4, 2, 3), "tiny_code", {"draft_length": 4}),
    ]
    written = []
    for number, (method, accepted, task, parameters) in enumerate(jobs):
        rows = job_rows(24, 3, accepted, task=task, started_unix=float(number))
        if method is PLD:
            rows[5] = failed_row(METHOD, rows[5]["sample_id"], rows[5]["repeat"])
        for place, entry in enumerate(rows):
            if entry["arm"] == METHOD and entry["error"] is None:
                if method is LOSSY:
                    entry["fidelity"] = "diverged"
                    entry["score"] = 0.0 if place % 7 == 0 else 1.0
                elif method is PLD and place in range(20, 30):
                    entry["fidelity"] = "tie"
        about = metadata(method, task=task, task_digest=task, parameters=parameters)
        written.append(result_set(folder, rows, about, f"job{number}"))
    return written


@pytest.fixture(scope="module")
def comparison(sets):
    return compare(sets)


@pytest.fixture(scope="module")
def lossless(sets):
    return compare([sets[0], sets[2]])


def printed(comparison, width: int) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, legacy_windows=False)
    console.print(table.render(comparison, width=width))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("SPECBENCH_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{name} differs; see make golden"


class TestGolden:
    @pytest.mark.parametrize("width", [80, 120, 200])
    def test_table(self, comparison, width):
        check_golden(f"table_{width}.txt", printed(comparison, width))

    def test_table_of_lossless_methods(self, lossless):
        check_golden("table_lossless_100.txt", printed(lossless, 100))

    def test_markdown(self, comparison):
        check_golden("comparison.md", markdown.render(comparison))


class TestTable:
    @pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
    def test_no_line_is_wider_than_the_terminal(self, comparison, lossless, width):
        for shown in (comparison, lossless):
            assert max(cell_len(line) for line in printed(shown, width).splitlines()) <= width

    def test_what_always_shows(self, comparison):
        """Speedup with interval, floor, exactness, n, and a lossy method's score at 80 columns."""
        header = next(line for line in printed(comparison, 80).splitlines() if "speedup" in line)
        assert header.split() == ["method", "class", "n", "speedup", "floor", "score"]

    def test_more_width_shows_more(self, comparison):
        shown = []
        for width in (80, 100, 120, 200):
            lines = printed(comparison, width).splitlines()
            shown.append(set(next(line for line in lines if "speedup" in line).split()))
        assert shown[0] < shown[1] < shown[2] < shown[3]

    def test_what_was_left_out_is_named(self, comparison):
        assert "Left out for want of width" in printed(comparison, 80)
        assert "Left out" not in printed(comparison, 250)

    def test_nothing_is_cut_where_there_is_no_terminal(self, comparison):
        text = printed(comparison, 10_000)
        assert "predicted" in text
        assert "…" not in text

    def test_names_are_not_read_as_markup(self, sets, tmp_path):
        rows = job_rows(4, 2, task="[red]x[/red]")
        result = result_set(tmp_path, rows, metadata(task="[red]x[/red]"))
        assert "[red]x[/red]" in printed(compare([result]), 100)

    def test_a_banner_stands_above_everything(self, sets, tmp_path):
        other = result_set(
            tmp_path, job_rows(12, 2), metadata(PLD, device="gpu", task_digest="tiny_math")
        )
        text = printed(compare([sets[0], other], allow={"device"}), 100)
        assert text.startswith("! Allowed difference: the devices differ")


class TestPassAtK:
    """Two seeds of one law: the method passes with the first of them only."""

    @pytest.fixture
    def seeds(self, tmp_path):
        written = []
        for seed in range(2):
            rows = job_rows(6, 2, score_name="pass_at_1", started_unix=float(seed))
            for entry in rows:
                entry["score"] = float(entry["arm"] == METHOD and seed == 0)
            config = {
                "method": {"name": "token_sd", "parameters": {}, "decoder": {}},
                "sampling": {"seed": seed},
            }
            about = metadata(config=config, temperature=0.8, law="temperature 0.8")
            written.append(result_set(tmp_path, rows, about, f"seed{seed}"))
        return compare(written)

    LINES = (
        "pass@k (2 draws): ar 0.00 @1, 0.00 @2",
        "pass@k (2 draws): token_sd 0.50 @1, 1.00 @2",
    )

    def test_the_table_says_it_below(self, seeds):
        lines = printed(seeds, 100).splitlines()
        places = [lines.index(line) for line in self.LINES]
        assert places == [places[0], places[0] + 1]
        assert lines[places[0] - 1].startswith("token_sd")
        assert "pass@k: chance" in printed(seeds, 1000)

    def test_markdown_says_it_below(self, seeds):
        text = markdown.render(seeds)
        assert "\n- pass@k (2 draws): token\\_sd 0.50 @1, 1.00 @2\n" in text
        assert "pass@k: chance" in text

    def test_json_and_csv_hold_it_by_k(self, seeds):
        row = json_module.loads(json.render(seeds))["rows"][1]
        assert (row["draws"], row["pass_at_k"]) == (2, {"1": 0.5, "2": 1.0})
        line = list(csv_module.DictReader(io.StringIO(csv.render(seeds))))[1]
        cells = [line[f"pass_at_k_{k}"] for k in (1, 2, 5, 100)]
        assert (line["draws"], cells) == ("2", ["0.5", "1.0", "", ""])

    def test_a_comparison_of_single_draws_says_nothing(self, comparison):
        assert "pass@k" not in printed(comparison, 1000) + markdown.render(comparison)


class TestJson:
    def test_full_precision_and_named_parts(self, comparison):
        values = json_module.loads(json.render(comparison))
        assert values["format"] == 1
        row = next(r for r in values["rows"] if r["label"] == "token_sd (draft_length=4)")
        source = next(r for r in comparison.rows if r.label == "token_sd (draft_length=4)")
        assert row["speedup_e2e"]["value"] == source.speedup_e2e.value
        assert row["speedup_e2e"]["interval"]["low"] == source.speedup_e2e.interval.low
        assert row["quantities"]["round_time"]["draft"] == 1.0
        assert row["quantities"]["fidelity"] == {
            "identical": 24,
            "tie": 0,
            "diverged": 0,
            "wrong": 0,
        }

    def test_the_keys_are_the_ones_that_were_promised(self, comparison):
        """A removed or renamed key must raise `json.FORMAT`."""
        values = json_module.loads(json.render(comparison))
        check_golden("json_keys.txt", "\n".join(sorted(_keys(values))) + "\n")

    def test_absent_values_are_null_and_never_nan(self):
        assert json.plain((float("nan"), float("inf"), None)) == [None, None, None]


class TestCsv:
    def test_a_line_for_each_row_with_the_values_of_the_json(self, comparison):
        lines = list(csv_module.DictReader(io.StringIO(csv.render(comparison))))
        assert len(lines) == len(comparison.rows)
        for line, row in zip(lines, comparison.rows, strict=True):
            assert line["label"] == row.label
            assert float(line["quantities_mal"]) == row.quantities["mal"]
            expected = "" if row.speedup_e2e is None else str(row.speedup_e2e.value)
            assert line["speedup_e2e_value"] == expected

    def test_every_value_of_the_json_has_a_column(self, comparison):
        rows = json_module.loads(json.render(comparison))["rows"]
        leaves = {key.replace(".", "_") for row in rows for key in _keys(row)}
        assert leaves <= set(csv.COLUMNS)


class TestMarkdown:
    def test_names_keep_their_characters(self, comparison):
        text = markdown.render(comparison)
        assert r"token\_sd (draft\_length=4)" in text

    def test_every_table_row_has_every_cell(self, comparison):
        lines = [line for line in markdown.render(comparison).splitlines() if line[:1] == "|"]
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def _keys(value, path: str = "") -> set[str]:
    """Dotted paths of the scalars and lists of scalars in decoded JSON."""
    if isinstance(value, dict):
        found = set()
        for key, item in value.items():
            found |= _keys(item, f"{path}.{key}" if path else key)
        return found
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return set().union(*(_keys(item, f"{path}[]") for item in value))
    return {path} if value is not None else set()
