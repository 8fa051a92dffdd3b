"""Weights as they are shipped: rounded to float16, with their digests beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import save_file
from torch import nn


def save_half(model: nn.Module, path: Path) -> None:
    """Write a model's weights in float16."""
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS`, in the format of `sha256sum`, over every other file of a folder."""
    listing = folder / "SHA256SUMS"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != listing)
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    )
    listing.write_text("".join(lines), encoding="utf-8")
