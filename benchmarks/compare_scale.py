"""How long `specbench compare` takes on many large result files, and how much memory.

    python -m benchmarks.compare_scale                  # 200 files of 10,000 rows, both shapes
    python -m benchmarks.compare_scale --files 20 --shape repeats

Writes synthetic result files into a temporary folder (about 1.2 GB for the default size), compares
them in a fresh process, and prints its wall time, its processor time and its peak resident memory.
Shapes: "methods" has 40 methods on every task, one file each, "repeats" has runs of one method on
one task. Each row has 20 rounds, 64 token ids and a text.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from specbench.schema.result import (
    METADATA_KEY,
    RESULT_SCHEMA,
    ROUND_TYPE,
    FileMetadata,
    MethodInfo,
)
from specbench.store.files import write_table

METHODS = 40
ROUNDS = 20
TOKENS = 64
REPEATS = 5
DRAFT_LENGTH = 5


def table(rows: int, task: str, method: str, generator: np.random.Generator) -> pa.Table:
    """Return the rows of one file: both arms in turn, five repeats of each sample."""
    number = np.arange(rows)
    plain = number % 2 == 0
    sample = number // 2 // REPEATS
    rounds = rounds_of(rows, plain, generator)
    per_row = {
        name: rounds[name].reshape(rows, ROUNDS).sum(axis=1)
        for name in ("emitted", "draft_ns", "target_ns", "host_ns", "target_forwards")
    }
    total = per_row["draft_ns"] + per_row["target_ns"] + per_row["host_ns"]
    prefill = rounds["target_ns"].reshape(rows, ROUNDS)[:, 0]
    values: dict[str, object] = {
        "arm": np.where(plain, "baseline", "method"),
        "method": np.where(plain, "ar", method),
        "model": np.full(rows, "model"),
        "task": np.full(rows, task),
        "category": np.char.add("category ", (sample % 4).astype(str)),
        "sample_id": np.char.add("sample ", sample.astype(str)),
        "repeat": number // 2 % REPEATS,
        "process": np.zeros(rows, int),
        "position": number,
        "started_unix": generator.random() * 1e9 + number,
        "stop_reason": np.full(rows, "length"),
        "prompt_tokens": np.full(rows, 100),
        "new_tokens": per_row["emitted"],
        "total_ns": total,
        "ttft_ns": prefill,
        "prefill_ns": prefill,
        "decode_ns": total - prefill,
        "draft_ns": per_row["draft_ns"],
        "target_ns": per_row["target_ns"],
        "host_ns": per_row["host_ns"],
        "target_forwards": per_row["target_forwards"],
        "target_tokens": per_row["target_forwards"],
        "draft_forwards": np.zeros(rows, int),
        "draft_tokens": np.zeros(rows, int),
        "peak_rss_bytes": generator.integers(1e9, 2e9, rows),
        "score": (generator.random(rows) < 0.7).astype(float),
        "score_name": np.full(rows, "exact_match"),
        "fidelity": np.where(plain, None, "identical"),
    }
    ids = pa.array(generator.integers(0, 32_000, rows * TOKENS).astype(np.int32))
    turns = pa.ListArray.from_arrays(np.arange(0, rows * TOKENS + 1, TOKENS, dtype=np.int32), ids)
    once = np.arange(rows + 1, dtype=np.int32)
    values["output_ids"] = pa.ListArray.from_arrays(once, turns)
    texts = pa.array(np.char.add("An answer of some words, number ", number.astype(str)))
    values["output_text"] = pa.ListArray.from_arrays(once, texts.cast(pa.string()))
    fields = [
        pa.array(rounds[field.name], field.type)
        if field.name in rounds
        else pa.nulls(rows * ROUNDS, field.type)
        for field in ROUND_TYPE
    ]
    nested = pa.StructArray.from_arrays(fields, fields=list(ROUND_TYPE))
    starts = np.arange(0, rows * ROUNDS + 1, ROUNDS, dtype=np.int32)
    values["rounds"] = pa.ListArray.from_arrays(starts, nested)
    columns = []
    for field in RESULT_SCHEMA:
        value = values.get(field.name)
        column = pa.nulls(rows, field.type) if value is None else pa.array(value)
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=RESULT_SCHEMA)


def rounds_of(
    rows: int, plain: np.ndarray, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the fields of all rounds: the first of each row is its prefill."""
    count = rows * ROUNDS
    drafting = np.repeat(~plain, ROUNDS) & (np.arange(count) % ROUNDS > 0)
    proposed = np.where(drafting, DRAFT_LENGTH, 0)
    accepted = np.where(drafting, np.minimum(generator.geometric(0.35, count) - 1, 5), 0)
    jitter = generator.normal(1.0, 0.03, count)
    return {
        "turn": np.zeros(count, int),
        "proposed": proposed,
        "accepted": accepted,
        "emitted": accepted + 1,
        "nodes": proposed,
        "target_forwards": np.ones(count, int),
        "target_tokens": proposed + 1,
        "draft_forwards": proposed,
        "draft_tokens": proposed,
        "draft_ns": (proposed * 1e5 * jitter).astype(int),
        "target_ns": (4e6 * jitter).astype(int),
        "host_ns": (3e5 * jitter).astype(int),
    }


def write(folder: Path, files: int, rows: int, shape: str) -> None:
    """Write the files of one shape."""
    generator = np.random.default_rng(0)
    methods = 1 if shape == "repeats" else min(METHODS, files)
    for number in range(files):
        method = f"method_{number % methods}"
        task = "task_0" if shape == "repeats" else f"task_{number // methods}"
        about = FileMetadata(
            job_id=f"{method}-{task}",
            method=MethodInfo(method),
            baseline=MethodInfo("ar"),
            model="model",
            task=task,
            task_version=1,
            task_digest=task,
            law="temperature 0",
            law_hash="aa11",
            scorer={"exact_match": 1},
            dtype="float32",
            device="cpu",
            engine="lean",
            temperature=0.0,
            config={"method": {"name": method, "parameters": {}}},
        )
        data = table(rows, task, method, generator)
        data = data.replace_schema_metadata({METADATA_KEY: about.to_json().encode()})
        with (folder / f"{number:04d}.parquet").open("wb") as file:
            write_table(data, file)


class Cost(NamedTuple):
    """What a comparison took.

    Attributes:
        wall: Seconds until it ended.
        processor: Seconds of all its threads, the system's work for it included.
        gigabytes: Peak resident memory in GiB.
        code: Exit code.
    """

    wall: float
    processor: float
    gigabytes: float
    code: int


def measure(folder: Path) -> Cost:
    """Compare a folder in a fresh process."""
    command = [sys.executable, "-m", "specbench", "compare", str(folder), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    processor = usage.ru_utime + usage.ru_stime
    return Cost(wall, processor, usage.ru_maxrss / 2**20, os.waitstatus_to_exitcode(status))


def main() -> None:
    """Write, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--shape", choices=("methods", "repeats", "both"), default="both")
    parser.add_argument("--folder", type=Path, help="Keep the files here, or reuse those there.")
    options = parser.parse_args()
    shapes = ("methods", "repeats") if options.shape == "both" else (options.shape,)
    for shape in shapes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.folder or Path(temporary)) / shape
            if not folder.is_dir():
                folder.mkdir(parents=True)
                write(folder, options.files, options.rows, shape)
            cost = measure(folder)
            print(
                f"{shape}: {options.files} files x {options.rows} rows x {ROUNDS} rounds: "
                f"{cost.wall:.1f} s, {cost.processor:.1f} s of processor time, "
                f"{cost.gigabytes:.2f} GiB, exit code {cost.code}"
            )


if __name__ == "__main__":
    main()
