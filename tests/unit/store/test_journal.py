"""Whatever happens to a run, its journal holds whole measurements and no halves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from specbench.errors import ResultsError
from specbench.store import Journal, Key, drop_written
from tests.unit.compare.factory import failed_row, metadata, plain_rounds, row

REPO_ROOT = Path(__file__).resolve().parents[3]


def measurement(sample: str, arm: str = "method", repeat: int = 0):
    return row(arm, sample, repeat, plain_rounds(3))


def opened(folder: Path, **options) -> Journal:
    return Journal.open(folder, "job", metadata(), **options)


def in_another_process(code: str, *arguments: str, **options) -> subprocess.Popen:
    script = textwrap.dedent(code)
    environment = {**os.environ, "PYTHONPATH": str(REPO_ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_what_is_appended_is_there_after_opening_again(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_many([measurement("a")])
        journal.append_many([measurement("b", "baseline"), measurement("b")])
        written = journal.rows
    with opened(tmp_path) as journal:
        assert journal.rows == written
        assert journal.metadata == metadata()
        assert journal.done == {
            Key("method", "a", 0, 0),
            Key("baseline", "b", 0, 0),
            Key("method", "b", 0, 0),
        }


def test_a_failed_measurement_is_not_done_and_is_replaced_by_the_next(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_many([failed_row("method", "a", 0)])
        assert journal.done == set()
        assert len(journal.rows) == 1
    with opened(tmp_path) as journal:
        assert journal.done == set()
        journal.append_many([measurement("a")])
    with opened(tmp_path) as journal:
        assert journal.done == {Key("method", "a", 0, 0)}
        assert [entry["error"] for entry in journal.rows] == [None]


def test_every_torn_end_is_cut_to_the_last_whole_group(tmp_path):
    """A crash may leave any prefix of the file: try each byte of the last group."""
    with opened(tmp_path) as journal:
        journal.append_many([measurement("a")])
        path = journal.path
        whole = path.stat().st_size
        journal.append_many([measurement("b", "baseline"), measurement("b")])
    content = path.read_bytes()
    for size in [*range(whole, len(content) - 1, 97), len(content) - 1]:
        path.write_bytes(content[:size])
        with opened(tmp_path) as journal:
            assert journal.done == {Key("method", "a", 0, 0)}
            assert path.stat().st_size == whole
            journal.append_many([measurement("c")])
        with opened(tmp_path) as journal:
            assert {key.sample_id for key in journal.done} == {"a", "c"}


def test_a_torn_header_begins_again(tmp_path):
    with opened(tmp_path) as journal:
        path = journal.path
    content = path.read_bytes()
    for size in (0, 1, len(content) - 1):
        path.write_bytes(content[:size])
        with opened(tmp_path) as journal:
            assert journal.rows == []
        assert path.read_bytes() == content


def test_zeros_after_a_power_cut_are_a_torn_end(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_many([measurement("a")])
    with journal.path.open("ab") as file:
        file.write(b"\0" * 4096 + b"\n")
    with opened(tmp_path) as journal:
        assert len(journal.done) == 1


def test_damage_before_the_end_is_an_error_that_names_the_line(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_many([measurement("a")])
        journal.append_many([measurement("b")])
    lines = journal.path.read_bytes().split(b"\n")
    lines[1] = lines[1][:50]
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(ResultsError, match="line 2"):
        opened(tmp_path)
    assert journal.path.read_bytes() == b"\n".join(lines)


def test_scalars_of_numpy_are_plain_numbers(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_many(
            [{**measurement("a"), "total_ns": np.int64(5), "score": np.float64(0.5)}]
        )
    line = json.loads(journal.path.read_text().splitlines()[1])
    assert (line["rows"][0]["total_ns"], line["rows"][0]["score"]) == (5, 0.5)


def test_the_journal_of_another_job_is_refused(tmp_path):
    opened(tmp_path).close()
    with pytest.raises(ResultsError, match="another job"):
        Journal.open(tmp_path, "job", metadata(job_id="ffffffffffff"))
    opened(tmp_path).close()


def test_fresh_sets_the_earlier_journal_aside(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_many([measurement("a")])
    earlier = journal.path.read_bytes()
    with opened(tmp_path, fresh=True) as journal:
        assert journal.rows == []
    assert (journal.path.parent / "job.aside-1.jsonl").read_bytes() == earlier


def test_removing_leaves_nothing(tmp_path):
    journal = opened(tmp_path)
    journal.append_many([measurement("a")])
    journal.remove()
    assert list(tmp_path.iterdir()) == []
    opened(tmp_path).close()


def test_a_second_run_of_the_job_is_refused_and_another_job_is_not(tmp_path):
    with opened(tmp_path):
        with pytest.raises(ResultsError) as refused:
            opened(tmp_path)
        assert f"process {os.getpid()}" in refused.value.why
        assert refused.value.exit_code == 2
        Journal.open(tmp_path, "other", metadata()).close()
    opened(tmp_path).close()


def test_killed_at_any_moment_it_keeps_what_was_appended(tmp_path):
    """The process prints each group's number after appending it, and is killed while writing."""
    code = """
        import sys
        from pathlib import Path
        from specbench.store import Journal
        from tests.unit.compare.factory import metadata, plain_rounds, row
        journal = Journal.open(Path(sys.argv[1]), "job", metadata())
        number = len(journal.rows) // 2
        while True:
            rows = [row(arm, f"s{number}", 0, plain_rounds(40)) for arm in ("baseline", "method")]
            journal.append_many(rows)
            print(number, flush=True)
            number += 1
    """
    for moment in (0.0, 0.013, 0.031):
        process = in_another_process(code, str(tmp_path))
        first = process.stdout.readline()
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        printed = [first, *process.stdout.readlines()]
        process.wait()
        process.stderr.close()
        said = [int(line) for line in printed if line.endswith("\n")]
        with opened(tmp_path) as journal:
            arms = {arm: set() for arm in ("baseline", "method")}
            for key in journal.done:
                arms[key.arm].add(key.sample_id)
            assert arms["baseline"] == arms["method"]
            assert {f"s{number}" for number in range(max(said) + 1)} <= arms["method"]
            assert len(arms["method"]) <= max(said) + 2


def test_a_full_disk_keeps_what_was_measured_and_says_so(tmp_path):
    """A limit on the file's size fails the write in the middle of a line, as a full disk does."""
    code = """
        import resource, sys
        from pathlib import Path
        from specbench.errors import ResultsError
        from specbench.store import Journal
        from tests.unit.compare.factory import metadata, plain_rounds, row
        journal = Journal.open(Path(sys.argv[1]), "job", metadata())
        journal.append_many([row("method", "a", 0, plain_rounds(3))])
        size = journal.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        try:
            journal.append_many([row("method", "b", 0, plain_rounds(3))])
        except ResultsError as error:
            print(error)
        assert journal.path.stat().st_size == size
    """
    process = in_another_process(code, str(tmp_path))
    said, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    assert "no space left" in said
    assert "keeps all 1 measurements" in said
    assert "resume" in said
    with opened(tmp_path) as journal:
        assert {key.sample_id for key in journal.done} == {"a"}


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(ResultsError, match="Cannot write"):
        opened(tmp_path / "results")


def test_a_journal_whose_rows_all_stand_in_a_file_is_deleted(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_many([measurement("a", "baseline"), measurement("a")])
        rows = journal.rows
    assert not drop_written(tmp_path, "another", rows)
    assert not drop_written(tmp_path, "job", rows[:1]), "one row stands nowhere else"
    later = [{**entry, "started_unix": entry["started_unix"] + 1} for entry in rows]
    assert not drop_written(tmp_path, "job", later), "the same measurements of another time"
    with opened(tmp_path):
        assert not drop_written(tmp_path, "job", rows), "a run holds it"
    assert drop_written(tmp_path, "job", rows)
    assert not list(tmp_path.rglob("*.*"))


def test_a_note_stands_with_the_first_measurement_of_its_process(tmp_path):
    with opened(tmp_path) as journal:
        journal.note(1, {"machine": {"load_average": 0.5}})
        assert journal.path.read_text().count("\n") == 1 and journal.notes == []
        journal.append_many([measurement("a")])
        journal.append_many([measurement("b")])
        written = journal.notes
    with opened(tmp_path) as journal:
        assert journal.notes == written == [{"process": 1, "machine": {"load_average": 0.5}}]
        assert len(journal.rows) == 2
