"""Find a head's files, say of which family they are, and load them behind a target.

A head is published as a folder or a hub repository with safetensors or a pickled state dictionary,
which is read by torch's safe reader alone (`models.state`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors import safe_open

from specbench.errors import ModelError, did_you_mean
from specbench.models import checkpoint as checkpoints
from specbench.models.base import Model
from specbench.models.checkpoint_files import read_json, training_of, weight_files
from specbench.models.heads.base import Head, HeadFiles, TargetShape
from specbench.models.pretrained import read_settings
from specbench.models.state import read_tensors
from specbench.paths import weights_dir
from specbench.schema.build import locate
from specbench.schema.heads import HEADS
from specbench.schema.model import ModelConfig

_PICKLED = ("*.bin", "*.pt")


def family_class(name: str) -> type[Head]:
    """Return the class of a family of heads."""
    found: type[Head] = locate(HEADS[name])
    return found


def find_head(config: ModelConfig, families: Collection[str] = HEADS) -> HeadFiles:
    """Find the head that a model entry names, and hold it against the target's configuration.

    Args:
        config: The entry, with a `head`.
        families: Those that the methods take.

    Raises:
        ModelError: If it is not there, of another family, or made for another target.
    """
    assert config.head is not None
    files = find_files(config.head, config.head_revision)
    family = family_of(files)
    if family not in families:
        raise ModelError(
            f"The head '{files.source}' is of the family '{family}'",
            f"the method takes: {', '.join(sorted(families))}",
            f"Choose a method of that family ({family}), or name another head with model.head=.",
        )
    target = checkpoints.find(config.target, config.target_revision)
    shape = TargetShape.of(read_settings(target), config.target)
    family_class(family).check(files, shape)
    trained = training_of(files.weights[0].parent)
    if trained and trained["target"]["digest"] != checkpoints.digest(target):
        raise files.unfit(f"it was trained behind '{trained['target']['source']}'", shape)
    return files


def head_bytes(config: ModelConfig) -> int:
    """Return the size of the weights of an entry's head; 0 where it names none."""
    if not config.head:
        return 0
    weights = _weights(config.head, _folder(config.head, config.head_revision))
    return sum(path.stat().st_size for path in weights)


def load_head(files: HeadFiles, target: Model) -> Head:
    """Load a head that `find_head` found behind its target, in the target's dtype."""
    return family_class(family_of(files)).load(files, target)


def describe(files: HeadFiles, head: Head) -> dict[str, object]:
    """Return what a result file records of a head."""
    trained = training_of(files.weights[0].parent)
    return {
        "source": files.source,
        "revision": files.revision,
        "digest": files.digest,
        "family": head.family,
        "dtype": str(head.dtype).removeprefix("torch."),
        **({"training": trained} if trained else {}),
    }


def family_of(files: HeadFiles) -> str:
    """Return the family of some files, by their keys.

    Raises:
        ModelError: If no family recognises them.
    """
    for name in HEADS:
        if family_class(name).recognises(files):
            return name
    raise ModelError(
        f"'{files.source}' is no head that specbench knows",
        f"its weights are {', '.join(sorted(files.shapes)[:4])}, ...; known families: "
        f"{', '.join(HEADS)}",
        "docs/heads.md lists the published layouts; a draft model is named with model.draft=.",
    )


def find_files(source: str, revision: str | None = None) -> HeadFiles:
    """Find a head's files: "embedded:NAME", a folder, or a hub id, which is downloaded.

    Raises:
        ModelError: If there is none, or none that can be read.
    """
    folder = _folder(source, revision)
    weights = _weights(source, folder)
    about = folder / "config.json"
    settings = read_json(about) if about.is_file() else {}
    shapes = {name: shape for path in weights for name, shape in _shapes(path).items()}
    read = [*weights, *([about] if about.is_file() else [])]
    return HeadFiles(source, revision, settings, weights, shapes, _digest(read))


def _weights(source: str, folder: Path) -> tuple[Path, ...]:
    """Return the weight files of a head's folder."""
    weights = tuple(weight_files(folder))
    if not weights:
        weights = tuple(sorted(path for kind in _PICKLED for path in folder.glob(kind)))
    if not weights:
        raise ModelError(
            f"'{source}' holds no weights of a head",
            f"{folder} has no *.safetensors, *.bin or *.pt",
            "Name the folder or hub repository of a published head (docs/heads.md).",
        )
    return weights


def _folder(source: str, revision: str | None) -> Path:
    """Return the local folder of a head."""
    if source.startswith(checkpoints.EMBEDDED):
        name = source.removeprefix(checkpoints.EMBEDDED)
        if not (weights_dir() / name).is_dir():
            names = [path.name for path in weights_dir().glob("*") if path.is_dir()]
            raise ModelError(
                f"There is no embedded head '{name}'",
                f"the package ships: {', '.join(sorted(names)) or 'none'}",
                did_you_mean(name, names),
            )
        return weights_dir() / name
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ModelError(
            f"There is no folder '{source}'",
            "a head is a local folder, a hub id ORG/NAME, or embedded:NAME",
            "Correct model.head.",
        )
    checkpoints.ask_hub(source, revision)
    try:
        for kinds in (("*.json", "*.safetensors"), _PICKLED):
            there = Path(snapshot_download(source, revision=revision, allow_patterns=list(kinds)))
            if any(path for kind in kinds[-2:] for path in there.glob(kind) if kind != "*.json"):
                break
    except Exception as error:
        raise ModelError(
            f"The head '{source}' could not be downloaded",
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            "Try again, or put its files into a folder and name that as model.head.",
        ) from error
    return there


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's tensors; safetensors and zipped pickles are not read for it."""
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    try:
        with safe_open(path, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except Exception as error:
        raise ModelError(
            f"'{path}' cannot be read",
            "it is no safetensors file, or only the beginning of one",
            "Fetch that file again.",
        ) from error


def _digest(paths: list[Path]) -> str:
    """Return SHA-256 over names and contents of files."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        sha.update(f"{path.name} {content}\n".encode())
    return f"sha256:{sha.hexdigest()[:32]}"
