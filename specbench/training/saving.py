"""Weights as they are shipped or published, with what is said of them beside them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from specbench.models.checkpoint import Checkpoint, folder_of
from specbench.models.checkpoint_files import INDEX, TRAINING, settings_files
from specbench.models.pretrained import quiet, read_settings
from specbench.training.shards import unwritable


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


def write_model(module: Any, files: Checkpoint, folder: Path) -> None:
    """Write a module of transformers as the checkpoint that it was read from.

    Args:
        module: Its weights are rounded to the dtype of that checkpoint.
        files: Where configuration and tokenizer come from.
        folder: An empty folder.
    """
    source = folder_of(files)
    assert source is not None, "its weights were read"
    for file in settings_files(source):
        if file.parent == source and file.name != INDEX:
            shutil.copyfile(file, folder / file.name)
    settings = read_settings(files)
    dtype = settings.dtype or torch.float32
    weights = {name: tensor.to(dtype) for name, tensor in module.state_dict().items()}
    with quiet():
        module.save_pretrained(folder, state_dict=weights)
    # The library would write the dtype that the module computed in.
    settings.architectures = [type(module).__name__]
    settings.save_pretrained(folder)


def write_head(module: nn.Module, settings: Mapping[str, Any], folder: Path, file: str) -> None:
    """Write a head under its module's names in float16, with its config.json.

    Args:
        module: Its state dictionary has the published names.
        settings: The published config.json.
        folder: An empty folder.
        file: Name of the file of weights: safetensors, or a pickled state dictionary (.pt).
    """
    halves: dict[int, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        half = tensor.half() if tensor.is_floating_point() else tensor
        weights[name] = halves.setdefault(tensor.data_ptr(), half.cpu().clone())
    if file.endswith(".pt"):
        torch.save(weights, folder / file)  # what several names share is written once
    else:
        weights = {name: tensor.clone() for name, tensor in weights.items()}
        save_file(weights, folder / file, metadata={"format": "pt"})
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def publish(folder: Path, write: Callable[[Path], None], about: Mapping[str, Any]) -> None:
    """Write a checkpoint into a folder; each file appears whole or not at all.

    Args:
        folder: Where the checkpoint stands.
        write: Writes it into an empty folder.
        about: What it was made of and how (`checkpoint_files.TRAINING`).

    Raises:
        ResultsError: If it cannot be written; the checkpoint before stands.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
            write(Path(temporary))
            text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
            (Path(temporary) / TRAINING).write_text(text, encoding="utf-8")
            for file in sorted(Path(temporary).iterdir()):
                file.chmod(0o644)
                os.replace(file, folder / file.name)
    except OSError as error:
        raise unwritable(folder, error) from error
