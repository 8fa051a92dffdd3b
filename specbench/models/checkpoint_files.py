"""What the files of a checkpoint say, read before any library class sees them.

A broken, missing or foreign file is told by its name here; the classes that read it later say
which line of theirs failed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from specbench.bounded import read_bytes
from specbench.errors import ModelError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TRAINING = "training.json"
"""What `specbench train` writes beside the weights: of what they were made, and how."""

ADAPTER = "adapter_config.json"
_MOST_BYTES = 1 << 26
_SETTINGS = frozenset(
    {".bpe", ".codes", ".jinja", ".json", ".model", ".spm", ".tiktoken", ".vocab"}
)
_VOCABULARIES = frozenset({"merges.txt", "vocab.txt"})


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        ModelError: If it cannot be read or holds something else.
    """
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        line = str(error).splitlines()[0]
        raise broken(path, f"it is not JSON: {line}") from error
    except OSError as error:
        raise broken(path, error.strerror or str(error)) from error
    if not isinstance(content, dict):
        raise broken(path, "it holds no JSON object")
    return content


def broken(path: Path, why: str) -> ModelError:
    """Return the error of a file that cannot be used."""
    return ModelError(
        f"'{path}' cannot be read",
        why,
        "Fetch that file again, or write the checkpoint anew with save_pretrained.",
    )


def check_every_json(folder: Path) -> None:
    """Look for the file that a library class stumbled over.

    Raises:
        ModelError: If a JSON file of the folder is broken.
    """
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size <= _MOST_BYTES:
            read_json(path)


def check_weights(source: str, folder: Path) -> None:
    """Refuse a folder whose weights are missing, in part or in whole, before they are read.

    Args:
        source: What the configuration said.
        folder: Where the checkpoint lies.

    Raises:
        ModelError: If there are none, or only pickled ones, or shards without an index, or fewer
            shards than the index names.
    """
    if (folder / SINGLE).is_file():
        return
    refused = f"'{source}' has no weights that can be loaded"
    if (folder / INDEX).is_file():
        lacking = sorted(path.name for path in _indexed(folder) if not path.is_file())
        if lacking:
            raise ModelError(
                f"'{source}' lacks {len(lacking)} of its weight files",
                f"{INDEX} names {lacking[0]}, which is not there",
                "Fetch the missing files.",
            )
        return
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if found:
        raise ModelError(
            refused,
            f"it holds {found[0]}"
            + (f" and {len(found) - 1} more" if len(found) > 1 else "")
            + f", but neither {SINGLE} nor {INDEX}, which says what stands in which file",
            f"Fetch {INDEX} too, or write the checkpoint anew with save_pretrained.",
        )
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
    raise ModelError(
        refused,
        "it holds pickled weights only, which are never loaded"
        if pickled
        else "it holds a config.json and no *.safetensors",
        "Save the model with safe serialization (save_pretrained writes model.safetensors).",
    )


def check_no_adapter(source: str, folder: Path) -> None:
    """Refuse a folder that holds an adapter and no model.

    Raises:
        ModelError: If it does.
    """
    if not (folder / ADAPTER).is_file() or (folder / "config.json").is_file():
        return
    about = read_json(folder / ADAPTER)
    kind = str(about.get("peft_type", "peft")).upper()
    kind = {"LORA": "LoRA"}.get(kind, kind)
    raise ModelError(
        f"'{source}' is a {kind} adapter and no model",
        f"it changes the weights of '{about.get('base_model_name_or_path')}', which it does not "
        "hold",
        "Merge both with peft (merge_and_unload, then save_pretrained) and name the merged folder.",
    )


def read_into(sha: hashlib._Hash, stream: BinaryIO) -> None:
    """Hash the rest of a file, a piece at a time: weights would double what a run holds."""
    while piece := stream.read(1 << 20):
        sha.update(piece)


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that are read, in order of their names."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _indexed(folder)
    return sorted(folder.glob("*.safetensors"))


def settings_files(folder: Path) -> list[Path]:
    """Return the files beside the weights that a library may read of a checkpoint, in order.

    They are configurations, tokenizers, templates and processors; notes, code and pickles are not.
    """
    found = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    return sorted(
        path
        for path in found
        if (path.suffix in _SETTINGS or path.name in _VOCABULARIES)
        and path.name != TRAINING
        and path.is_file()
    )


def training_of(folder: Path) -> dict[str, Any]:
    """Return what `specbench train` wrote of a checkpoint, but for its history; else nothing.

    Raises:
        ModelError: If the file is broken.
    """
    path = folder / TRAINING
    found = read_json(path) if path.is_file() else {}
    return {key: value for key, value in found.items() if key != "history"}


def count_parameters(folder: Path) -> int | None:
    """Return how many numbers the weights are, from the headers of their files.

    Args:
        folder: Where they lie.

    Returns:
        The number; None where a header cannot be read.
    """
    total = 0
    for path in weight_files(folder):
        try:
            tensors, _ = _header(path)
        except ModelError:
            return None
        total += sum(math.prod(about["shape"]) for about in tensors)
    return total or None


def weights_note(folder: Path) -> str | None:
    """Return what `models.gguf` says of the weights that it converted; None for any others."""
    files = weight_files(folder)
    if len(files) != 1:
        return None
    said = _metadata(files[0]).get("weights")
    return said if isinstance(said, str) else None


def check_headers(folder: Path) -> None:
    """Look for the weight file that a library class stumbled over.

    Raises:
        ModelError: If a file is no safetensors, or shorter than its header says.
    """
    for path in weight_files(folder):
        tensors, start = _header(path)
        length = start + max((about["data_offsets"][1] for about in tensors), default=0)
        if path.stat().st_size < length:
            raise broken(path, f"it ends after {path.stat().st_size:,} of {length:,} bytes")


def _metadata(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says beside its tensors; nothing where it cannot be read."""
    try:
        found = _content(path)[0].get("__metadata__")
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _content(path: Path) -> tuple[Any, int]:
    """Return the header of a safetensors file, and how long it is."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return json.loads(stream.read(min(size, _MOST_BYTES))), size


def _header(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return what a safetensors file says of its tensors, and where their data begin."""
    try:
        header, size = _content(path)
        tensors = [about for name, about in header.items() if name != "__metadata__"]
        return [
            {key: about[key] for key in ("shape", "data_offsets")} for about in tensors
        ], 8 + size
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise broken(path, "it is no safetensors file, or only the beginning of one") from error


def end_ids(*settings: Mapping[str, Any]) -> frozenset[int]:
    """Return the end-of-text ids of the first settings that name any.

    Args:
        *settings: Contents of generation_config.json and config.json, most telling first.
    """
    for each in settings:
        nested = each.get("text_config")
        for place in (each, nested if isinstance(nested, Mapping) else {}):
            named = place.get("eos_token_id")
            ids = named if isinstance(named, list) else [named]
            whole = frozenset(token for token in ids if type(token) is int and token >= 0)
            if whole:
                return whole
    return frozenset()


def _indexed(folder: Path) -> list[Path]:
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise broken(folder / INDEX, "it has no 'weight_map' from weights to files")
    return [folder / Path(name).name for name in sorted(set(names.values()))]
