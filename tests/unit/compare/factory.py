"""Synthetic results: rows, metadata and files whose every derived value can be worked out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specbench.schema.result import BASELINE, METHOD, FileMetadata, MethodInfo
from specbench.store import ResultSet, read_parquet, write_parquet

AR = MethodInfo("ar", "Plain decoding", "exact")
TOKEN_SD = MethodInfo("token_sd", "Speculative sampling", "exact")

MILLISECOND = 1_000_000


def metadata(method: MethodInfo = TOKEN_SD, baseline: MethodInfo | None = AR, **changes: Any):
    """Metadata of one job; keyword arguments replace fields."""
    parameters = changes.pop("parameters", {})
    values: dict[str, Any] = {
        "job_id": "0123456789ab",
        "method": method,
        "baseline": baseline,
        "model": "tiny_text",
        "task": "tiny_math",
        "task_version": 1,
        "task_digest": "d1",
        "law": "temperature 0",
        "law_hash": "aa11",
        "scorer": {"exact_match": 1},
        "dtype": "float32",
        "device": "cpu",
        "engine": "lean",
        "temperature": 0.0,
        "timing": {"repeats": 3, "threads": 2},
        "config": {"method": {"name": method.name, "parameters": parameters, "decoder": {}}},
        "provenance": {"specbench": "0.1.0"},
    }
    return FileMetadata(**{**values, **changes})


def a_round(emitted: int, proposed: int = 0, accepted: int = 0, **changes: int) -> dict[str, int]:
    """One round of a CPU: 1 ms draft where it proposes, 4 ms target, 1 ms host."""
    drafting = proposed > 0
    values = {
        "turn": 0,
        "proposed": proposed,
        "accepted": accepted,
        "emitted": emitted,
        "nodes": proposed,
        "target_forwards": 1,
        "target_tokens": proposed + 1,
        "draft_forwards": proposed,
        "draft_tokens": proposed,
        "draft_ns": MILLISECOND if drafting else 0,
        "target_ns": 4 * MILLISECOND,
        "host_ns": MILLISECOND,
        "sampling_ns": None,
        "decided": None,
        "further": None,
    }
    return {**values, **changes}


def plain_rounds(tokens: int) -> list[dict[str, int]]:
    """Rounds of plain decoding: the prefill and one round for each further token."""
    return [a_round(1) for _ in range(tokens)]


def draft_rounds(accepted: list[int], proposed: int = 4) -> list[dict[str, int]]:
    """Rounds of a draft-verify method: the prefill, then one round for each entry."""
    return [a_round(1), *(a_round(count + 1, proposed, count) for count in accepted)]


def row(
    arm: str, sample: str, repeat: int, rounds: list[dict[str, int]], **changes: Any
) -> dict[str, Any]:
    """One successful measurement; its times are the sums over its rounds."""
    turns = sorted({entry["turn"] for entry in rounds})
    first = [next(entry for entry in rounds if entry["turn"] == turn) for turn in turns]

    def duration(entry: dict[str, int]) -> int:
        times = (entry[f"{part}_ns"] or 0 for part in ("draft", "target", "host", "sampling"))
        return sum(times)

    total = sum(duration(entry) for entry in rounds)
    prefill = sum(duration(entry) for entry in first)
    emitted = sum(entry["emitted"] for entry in rounds)
    summed = ("draft_ns", "target_ns", "host_ns", "target_forwards", "target_tokens")
    sampling = [entry["sampling_ns"] for entry in rounds if entry["sampling_ns"] is not None]
    values: dict[str, Any] = {
        "arm": arm,
        "method": "ar" if arm == BASELINE else "token_sd",
        "model": "tiny_text",
        "task": "tiny_math",
        "category": "math",
        "sample_id": sample,
        "repeat": repeat,
        "process": 0,
        "position": 0,
        "started_unix": 1000.0,
        "error": None,
        "stop_reason": "stop_token",
        "prompt_tokens": 20,
        "new_tokens": emitted,
        "output_ids": [[1] * sum(e["emitted"] for e in rounds if e["turn"] == t) for t in turns],
        "output_text": ["text"] * len(turns),
        "total_ns": total,
        "ttft_ns": duration(first[0]),
        "prefill_ns": prefill,
        "decode_ns": total - prefill,
        **{name: sum(entry[name] for entry in rounds) for name in summed},
        "sampling_ns": sum(sampling) if sampling else None,
        "draft_forwards": sum(entry["draft_forwards"] for entry in rounds),
        "draft_tokens": sum(entry["draft_tokens"] for entry in rounds),
        "peak_rss_bytes": 500 * 2**20,
        "score": 1.0,
        "score_name": "exact_match",
        "fidelity": "identical" if arm == METHOD else None,
        "rounds": rounds,
    }
    return {**values, **changes}


def failed_row(arm: str, sample: str, repeat: int, error: str = "boom") -> dict[str, Any]:
    """A measurement that failed: nothing but its identity and its error."""
    whole = row(arm, sample, repeat, [a_round(1)])
    kept = ("arm", "method", "model", "task", "category", "sample_id", "repeat", "process")
    return {name: whole[name] for name in (*kept, "position", "started_unix")} | {"error": error}


def slowed(values: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same measurement with every wall time multiplied."""
    times = ("total_ns", "ttft_ns", "prefill_ns", "decode_ns")
    return {**values, **{name: round(values[name] * factor) for name in times}}


def job_rows(
    samples: int = 12,
    repeats: int = 3,
    accepted: tuple[int, ...] = (4, 2, 0, 3),
    drift: float = 0.01,
    **changes: Any,
) -> list[dict[str, Any]]:
    """Both arms of a job: every sample emits the same number of tokens in both arms.

    Times vary by sample, by a drift of a few percent that both arms of a repeat share, and by a
    smaller ripple that only one arm has.
    """
    tokens = 1 + sum(count + 1 for count in accepted)
    rows = []
    for number in range(samples):
        shape = accepted[number % len(accepted) :] + accepted[: number % len(accepted)]
        for repeat in range(repeats):
            shared = 1 + drift * ((number + repeat) % 3)
            ripple = 1 + 0.004 * ((number * 7 + repeat * 3) % 5)
            name = f"s{number:03d}"
            plain = row(BASELINE, name, repeat, plain_rounds(tokens), **changes)
            fast = row(METHOD, name, repeat, draft_rounds(list(shape)), **changes)
            rows.append(slowed(plain, shared))
            rows.append(slowed(fast, shared * ripple * (1 + 0.02 * (number % 4))))
    return rows


def result_set(
    folder: Path, rows: list[dict[str, Any]], about: FileMetadata, name: str = "job"
) -> ResultSet:
    """Write rows to a result file and read it again."""
    path = folder / f"{name}.parquet"
    write_parquet(path, rows, about)
    return read_parquet(path)
