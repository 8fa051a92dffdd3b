"""Names in a result file give no orders: to a terminal, a table calculator, or GitHub."""

from __future__ import annotations

import csv as csv_module
import io
import re

import pytest

from specbench import store
from specbench.cli.console import print_error, stdout
from specbench.compare import compare
from specbench.errors import SpecbenchError, printable
from specbench.report import csv, gha, markdown, table
from specbench.schema.result import MethodInfo
from tests.unit.compare.factory import AR, metadata, plain_rounds, row

ORDERS = (
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m",
    "a\u202eb",
)
MARKED = (
    "x\n# heading",
    "[a](http://evil.example)",
    "![a](http://evil.example/p.png)",
    "[a]: http://evil.example",
    "@somebody",
    "x\n\n- @a/team see owner/repo#12",
    "www.evil.example",
    "<img src=x>",
    "`code` | cell",
    "&#64;somebody",
)
FORMULAS = ("=1+2", "+1", "-1+1", "@SUM(1)", " =1", '=HYPERLINK("http://evil.example")')


def compared(folder, name: str):
    """A comparison in which a method, a task and a model bear a hostile name."""
    about = metadata(MethodInfo(name, name, "exact"), AR, task=name, model=name, law=name)
    rows = [
        row(arm, sample, 0, plain_rounds(2), task=name, category=name, model=name)
        for sample in ("a", "b")
        for arm in ("baseline", "method")
    ]
    path = folder / "x.parquet"
    store.write_parquet(path, rows, about)
    return compare([store.read_parquet(path)])


@pytest.mark.parametrize("order", ORDERS)
def test_no_escape_sequence_reaches_a_terminal(tmp_path, capsys, order):
    comparison = compared(tmp_path, f"m{order}")
    stdout().print(table.render(comparison, width=120))
    print_error(SpecbenchError(f"no {order}", order, order))
    streams = capsys.readouterr()
    for text in (streams.out, streams.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert printable(order) in streams.err


@pytest.mark.parametrize("name", MARKED)
def test_no_markdown_of_a_name_is_read(tmp_path, name):
    comparison = compared(tmp_path, name)
    text = markdown.render(comparison)
    data = "".join(gha.files(comparison).values())
    assert not re.search(r"^ *(?:- )?#", text, re.MULTILINE)
    assert not re.search(r"(?<!\\)\](?=[(:\[])", text)
    assert "<img" not in text.replace("\\<", "")
    for written in (text, data):
        assert "://evil" not in written and "www.evil" not in written
        assert "@somebody" not in written and "@a/team" not in written and "#12" not in written
    assert "&#64;" not in text


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(tmp_path, name):
    lines = list(csv_module.DictReader(io.StringIO(csv.render(compared(tmp_path, name)))))
    assert lines
    for line in lines:
        for value in line.values():
            begins = value.lstrip().startswith(("=", "+", "-", "@"))
            assert not begins or re.fullmatch(r"-[0-9.e+-]+", value), value


@pytest.mark.parametrize("text", ["token_sd", "1.20x [1.1, 1.3]", "-0.5", "tiny_math n=3"])
def test_ordinary_words_stay_readable(text):
    assert markdown.escaped(text) == text.replace("_", "\\_")
