"""The digests that are shipped beside weights, in the format of `sha256sum`."""

from __future__ import annotations

import hashlib
from pathlib import Path

LISTING = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` with the digest of every other file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LISTING)
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    )
    (folder / LISTING).write_text("".join(lines), encoding="utf-8")
