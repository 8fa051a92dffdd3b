"""A machine that was busy while it measured is named wherever its times are shown."""

from __future__ import annotations

from pathlib import Path

from specbench.compare import compare
from specbench.compare.gate import gate
from specbench.compare.history import history
from specbench.compare.warn import machine_warnings
from specbench.report import markdown
from specbench.store import ResultSet
from tests.unit.compare.factory import job_rows, metadata, result_set

BUSY = ("other processes keep 1.9 of 2 CPUs busy", "other processes keep 0.8 of 2 CPUs busy")
SAID = f"the machine was not at rest while it measured: token_sd ({BUSY[0]})"


def run(folder: Path, name: str, *said: tuple[str, ...]) -> ResultSet:
    """A file of one process for each list of what was found while it measured."""
    processes = [
        {"process": k, "machine": {"during": {"warnings": [*w]}}} for k, w in enumerate(said)
    ]
    about = metadata(provenance={"specbench": "0.1.0", "processes": processes})
    return result_set(folder, job_rows(), about, name)


def test_a_comparison_says_it_once_with_the_worst_process(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path, "a", (), BUSY[1:], BUSY[:1])])
    assert [line for line in comparison.warnings if SAID in line] == [f"doubtful times, {SAID}."]
    assert BUSY[0] in markdown.render(comparison)


def test_a_gate_and_a_history_say_it_too(tmp_path: Path) -> None:
    quiet, busy = run(tmp_path, "quiet", ()), run(tmp_path, "busy", BUSY[:1])
    found = gate([quiet], [busy], ["mal:1%"])
    assert [note for note in found.notes if SAID in note][0].startswith("NEW: ")
    assert any(SAID in line for line in history([busy], "mal").warnings)


def test_a_machine_at_rest_and_older_files_say_nothing(tmp_path: Path) -> None:
    old = metadata(provenance={"processes": [{"machine": {"others_busy_cpus": 1.9}}, None, "x"]})
    results = [run(tmp_path, "quiet", ()), result_set(tmp_path, job_rows(), old, "old")]
    assert machine_warnings(results) == []
