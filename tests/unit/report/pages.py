"""Result files from which the tests write pages, plots and tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from specbench.schema.result import BASELINE, METHOD, MethodInfo
from specbench.store import ResultSet
from specbench.store.png import save_png
from tests.unit.compare.factory import TOKEN_SD, failed_row, job_rows, metadata, result_set

PLD = MethodInfo("pld", "Prompt lookup", "exact")
JACOBI = MethodInfo("jacobi", "Jacobi", "greedy")
LOSSY = MethodInfo("typical_sd", "Typical acceptance", "lossy", knob="epsilon")

HOSTILE = '</script><img src=x onerror="alert(1)"><b>&amp;{{ 7 * 7 }}'
"""A text that must never become markup, a script, or a template's expression."""


def text_results(folder: Path, samples: int = 12) -> list[ResultSet]:
    """Two draft lengths, a greedy method, a lossy one with other texts, two categories."""
    jobs = [
        (TOKEN_SD, (4, 2, 0, 3), {"draft_length": 4}),
        (TOKEN_SD, (6, 2, 0, 5), {"draft_length": 6}),
        (JACOBI, (1, 0, 2, 1), {}),
        (LOSSY, (4, 4, 3, 3), {}),
    ]
    written = []
    for number, (method, accepted, parameters) in enumerate(jobs):
        rows = job_rows(samples, 3, accepted, started_unix=float(number))
        for place, entry in enumerate(rows):
            entry["category"] = "math" if int(entry["sample_id"][1:]) % 2 else "code"
            entry["method"] = method.name if entry["arm"] == METHOD else "ar"
            entry["output_text"] = [f"answer to {entry['sample_id']}: {HOSTILE}"]
            entry["output_ids"] = [[1] * 10]
            if method is LOSSY and entry["arm"] == METHOD:
                entry["fidelity"] = None
                entry["score"] = 0.0 if place % 7 == 0 else 1.0
                entry["output_text"] = [f"answer to {entry['sample_id']}: otherwise {HOSTILE}"]
                entry["output_ids"] = [[1, 1, 9, 9]]
        if method is JACOBI:
            last = rows[-1]
            rows[-1] = failed_row(METHOD, last["sample_id"], last["repeat"], HOSTILE)
        provenance = {
            "specbench": "0.1.0",
            "git": {"revision": "abc123", "dirty": True},
            "command": ["specbench", "run", "--multirun", "method=a b"],
        }
        about = metadata(method, parameters=parameters, provenance=provenance)
        written.append(result_set(folder, rows, about, f"job{number}"))
    return written


def picture_results(folder: Path, side: int = 24) -> list[ResultSet]:
    """One method of pictures: its first sample's picture is the baseline's, the others are not."""
    rows = job_rows(4, 2, task="shapes", score=None, score_name=None, fidelity=None)
    for entry in rows:
        number = int(entry["sample_id"][1:])
        entry["output_text"] = []
        if entry["repeat"] == 0:
            name = f"job/{entry['arm']}-{number}.png"
            shade = 40 if entry["arm"] == BASELINE or number == 0 else 40 + 50 * number
            pixels = np.full((side, side, 3), shade, dtype=np.uint8)
            save_png(folder / name, pixels)
            entry["picture"] = name
            entry["quality"] = {"rules": float(number % 2)}
        if entry["arm"] == METHOD and number:
            entry["output_ids"] = [[number] * 15]
    about = metadata(
        task="shapes",
        temperature=1.0,
        law="temperature 1",
        scorer={},
        config={"model": {"modality": "image"}, "method": {"name": "token_sd"}},
        metrics={
            "rules": {
                "title": "Rules",
                "unit": "",
                "better": "higher",
                "version": 1,
                "protocol": "rules of shapes",
                "average": "pictures",
                "kind": "picture",
            }
        },
    )
    return [result_set(folder, rows, about)]
