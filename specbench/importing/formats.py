"""Which formats there are, and which one a file is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from specbench.errors import ResultsError, UsageError, did_you_mean
from specbench.importing import answers, chat, serving
from specbench.importing.documents import Document, read_document
from specbench.importing.records import Published

AUTO = "auto"
"""The word for finding the format out."""

_READERS: dict[str, Callable[[Document, str, bool], Published]] = {
    **dict.fromkeys(answers.CONVENTIONS, answers.read),
    **serving.READERS,
    "openai_chat": chat.read,
    "sglang_generate": chat.read,
}

FORMATS = tuple(_READERS)
"""Names of the formats."""


def read_source(path: Path, format_name: str = AUTO, skip_bad: bool = False) -> Published:
    """Read one file of published measurements.

    Args:
        path: The file.
        format_name: One of `FORMATS`, or "auto".
        skip_bad: Whether lines that cannot be read are left out and counted.

    Raises:
        UsageError: If there is no such format.
        ResultsError: If the file cannot be read, is in no known format or lacks what a
            measurement needs.
    """
    if format_name not in (AUTO, *FORMATS):
        raise UsageError(
            f"Unknown format '{format_name}'",
            f"there are: {', '.join((AUTO, *FORMATS))}",
            did_you_mean(format_name, FORMATS),
        )
    document = read_document(path, skip_bad)
    found = detect(document) if format_name == AUTO else format_name
    return _READERS[found](document, found, skip_bad)


def detect(document: Document) -> str:
    """Return the format of a file, by the keys of its first object.

    Raises:
        ResultsError: If it is in no known format, or known not to hold enough.
    """
    first = document.records[0].values
    for looks_like in (answers.looks_like, serving.looks_like, chat.looks_like):
        found = looks_like(first)
        if found is not None:
            return found
    known = serving.why_not(first)
    if known is None and isinstance(first.get("choices"), list):
        known = (
            "its answers carry no wall_time, so that nothing was measured",
            "Give the answer file of a script that times each turn.",
        )
    why, fix = known or (
        f"its first object has the keys {', '.join(map(repr, list(first)[:6]))}",
        f"Name its format with --format; there are: {', '.join(FORMATS)}.",
    )
    raise ResultsError(f"The format of '{document.path}' cannot be imported", why, fix)
