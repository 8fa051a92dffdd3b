"""Many large files: read once, without what was generated, and the same numbers as one by one.

`benchmarks/compare_scale.py` has the seconds and the memory.
"""

from __future__ import annotations

import collections

import numpy as np
import pandas as pd
import pytest

from benchmarks.compare_scale import write
from specbench.compare import compare
from specbench.compare.pool import MOST_PASSES, pair, pools_of
from specbench.compare.speedup import FEWEST_RESAMPLES, Effort
from specbench.compare.table import Table, codes_of
from specbench.schema.result import METHOD
from specbench.stats import DEFAULT_RESAMPLES
from specbench.store import ResultSet, read_many

ROWS = 200
FILES = 6


@pytest.fixture(scope="module", params=["methods", "repeats"])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write(folder, FILES, ROWS, request.param)
    return read_many([folder])


def test_a_comparison_reads_each_file_once_and_not_its_texts(results, monkeypatch):
    read = collections.Counter()
    whole = ResultSet.read

    def spy(self, columns, *arguments, **options):
        read.update((self.path.name, name) for name in columns)
        return whole(self, columns, *arguments, **options)

    monkeypatch.setattr(ResultSet, "read", spy)
    compare([*map(_anew, results)])
    names = {name for _, name in read}
    assert not names & {"output_ids", "output_text", "score_detail"}
    assert read[results[0].path.name, "rounds"] == 1
    before = {"sample_id", "prompt_digest", "fidelity"}  # read alone: may these files be compared?
    assert max(count for (_, name), count in read.items() if name not in before) == 1
    assert max(read.values()) == 2


def _anew(result):
    (fresh,) = read_many([result.path])
    return fresh


def test_the_numbers_are_those_of_a_plain_computation(results):
    rows = {row.label: row for row in compare(results, by="overall").rows if not row.is_baseline}
    for label, found in rows.items():
        members = [r for r in results if r.metadata.method.name == label]
        frames, rounds = zip(*((r.rows, r.rounds) for r in members), strict=True)
        total = {arm: sum(f[f.arm == arm].total_ns.sum() for f in frames) for arm in ARMS}
        assert found.speedup_e2e.value == pytest.approx(total["baseline"] / total["method"])
        kept = pd.concat(
            r[~r["first"] & (f["arm"] == METHOD).to_numpy()[r["row"]]]
            for f, r in zip(frames, rounds, strict=True)
        )
        assert found.quantities["mal"] == pytest.approx(kept["emitted"].mean())
        histogram = tuple(int(count) for count in np.bincount(kept["accepted"]))
        assert found.quantities["acceptance_histogram"] == histogram
        second = kept[(kept["proposed"] >= 2) & (kept["accepted"] >= 1)]
        rate = (second["accepted"] >= 2).mean()
        assert found.quantities["acceptance_by_position"][1] == pytest.approx(rate)


ARMS = ("baseline", "method")


def test_pairs_are_of_one_file_sample_and_repeat(results):
    for pool in pools_of(results, ()):
        pairs = pair(pool)
        assert len(pairs.method) == ROWS // 2 * pool.files
        keys = ["file", "task", "sample_id", "repeat", "process"]
        left, right = pairs.baseline.rows[keys], pairs.method.rows[keys]
        assert left.astype(str).to_numpy().tolist() == right.astype(str).to_numpy().tolist()
        assert set(pairs.baseline.rows["arm"]) == {"baseline"}


def test_a_noise_floor_looks_at_whole_files_and_not_at_all_passes(results):
    for pool in pools_of(results, ()):
        times = pair(pool).times("total_ns")
        some = times.some()
        assert len(some.process) <= max(MOST_PASSES, 2 * 5)
        for file in np.unique(some.files[np.isfinite(some.files)]):
            assert (some.files == file).any(axis=0).sum() == 5


def test_many_rows_share_a_bounded_number_of_resamples():
    assert Effort.of(1).resamples == Effort.of(50).resamples == DEFAULT_RESAMPLES
    assert Effort.of(80).resamples == 500
    assert Effort.of(10**6).resamples == FEWEST_RESAMPLES


def test_combinations_are_numbered_whatever_the_size_of_the_numbers():
    generator = np.random.default_rng(0)
    columns = [generator.choice([-(2**62), 0, 2**62], 60) for _ in range(3)]
    wanted = pd.factorize(pd.MultiIndex.from_arrays(columns))[0]
    assert codes_of(columns).tolist() == wanted.tolist()


def test_a_table_keeps_absent_text_apart():
    table = Table.of(pd.DataFrame({"error": pd.Series(["x", None, "x"], dtype="str")}))
    assert table.arrays["error"].tolist() == [0, -1, 0]
    assert table.code("error", "x") == 0
    assert table.code("error", "y") == -2
