"""What each model entry would need of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

EMBEDDED, CACHED, PARTLY, FETCH = "embedded", "cached", "partly cached", "to fetch"

_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")


class Need(NamedTuple):
    """What a model entry needs.

    Attributes:
        name: The entry.
        gigabytes: Of weights, target and drafts together; None where nobody knows. Heads are
            fetched when a method asks for one.
        where: "embedded", "cached", "partly cached", "to fetch", the command that fetches it, or
            "you name it".
        fits: Whether the weights fit into the free memory of the device; None where unknown.
    """

    name: str
    gigabytes: float | None
    where: str
    fits: bool | None


def needs_of_models(free_bytes: int) -> list[Need]:
    """Return what every entry needs.

    Args:
        free_bytes: Free memory of the device on which it would run.
    """
    from specbench.schema import catalog

    return [
        need_of(name, catalog.load("model", name), free_bytes) for name in catalog.names("model")
    ]


def need_of(name: str, entry: Mapping[str, Any], free_bytes: int) -> Need:
    """Return what one entry needs."""
    places = _places(entry)
    if any(place == "???" for place, _ in places):
        return Need(name, None, "you name it", None)
    embedded = [place for place, _ in places if place.startswith("embedded:")]
    if len(embedded) == len(places):
        size = sum(_embedded_bytes(place) for place in embedded) / 1e9
        return Need(name, size, EMBEDDED, size * 1e9 <= free_bytes)
    file = (entry.get("loader") or {}).get("weights")
    there = [_is_there(place, revision, file) for place, revision in places]
    where = CACHED if all(there) else PARTLY if any(there) else _fetching(str(entry["target"]))
    gigabytes = entry.get("weights_gb")
    return Need(
        name, gigabytes, where, None if gigabytes is None else gigabytes * 1e9 <= free_bytes
    )


def device_of_runs() -> tuple[torch.device, int]:
    """Return the device that `model.device=auto` takes, and its free memory in bytes."""
    from specbench.models.checkpoint import free_memory
    from specbench.models.load import pick_device

    device = pick_device("auto")
    return device, free_memory(device)


def _places(entry: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return where target and drafts come from, with their revisions."""
    places = [(str(entry.get("target")), entry.get("target_revision"))]
    if entry.get("draft"):
        places.append((str(entry["draft"]), entry.get("draft_revision")))
    pinned = [*(entry.get("more_drafts") or ()), *filter(None, [entry.get("parallel_draft")])]
    for place in pinned:
        source, _, revision = str(place).partition("@")
        places.append((source, revision or None))
    return places


def _embedded_bytes(place: str) -> int:
    from specbench.paths import weights_dir

    folder = weights_dir() / place.removeprefix("embedded:")
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _fetching(source: str) -> str:
    from specbench.models import packaged

    return packaged.command(source) if source.startswith(packaged.SCHEME) else FETCH


def _is_there(place: str, revision: str | None, file: str | None) -> bool:
    """Say whether weights are a local folder's or a cache's; nothing is asked of the hub."""
    from specbench.models import packaged

    if place.startswith(packaged.SCHEME):
        return packaged.Packaged.of(place, revision).folder.is_dir()
    folder = Path(place).expanduser()
    if folder.is_dir():
        return _has_weights(folder, file)
    return any(_has_weights(snapshot, file) for snapshot in _snapshots(place, revision))


def _snapshots(repository: str, revision: str | None) -> Sequence[Path]:
    """Return the folder of a repository's revision in the hub's cache, if it is there."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    home = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    named = home / "refs" / (revision or "main")
    commit = named.read_text(encoding="utf-8").strip() if named.is_file() else revision
    snapshot = home / "snapshots" / (commit or "")
    return [snapshot] if commit and snapshot.is_dir() else []


def _has_weights(folder: Path, file: str | None) -> bool:
    """Say whether a folder holds weights; a link to a file that is gone is none."""
    if file is not None:
        return (folder / file).is_file()
    return any(path.suffix in _WEIGHTS and path.is_file() for path in folder.rglob("*"))
