"""From the words of a command to hardware and shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from specbench.bounded import read_text
from specbench.errors import ConfigError, UsageError
from specbench.paths import weights_dir
from specbench.predict.profile import Profile
from specbench.schema import catalog
from specbench.schema.hardware import Hardware
from specbench.schema.shape import Shape

Role = Literal["target", "draft"]

_EMBEDDED = "embedded:"
_LARGEST_CONFIG = 16 * 2**20
"""Bytes beyond which a file is no config.json."""


def hardware_named(name: str, folders: Sequence[Path] = ()) -> Hardware:
    """Return a hardware entry by its id or one of its aliases.

    Args:
        name: What the user typed, in any case.
        folders: Configuration folders beside the project's own.

    Raises:
        ConfigError: If there is no such entry; names the nearest.
    """
    entries = hardware_entries(folders)
    for hardware in entries:
        if _is(name, hardware):
            return hardware
    options = [word for entry in entries for word in (entry.name, *entry.aliases)]
    raise catalog.unknown_entry("hardware", name, options)


def hardware_entries(folders: Sequence[Path] = ()) -> list[Hardware]:
    """Return every hardware entry.

    Raises:
        ConfigError: If one of them is not valid.
    """
    names = catalog.names("hardware", folders)
    return [Hardware.from_dict(catalog.load("hardware", name, folders), name) for name in names]


def shape_named(name: str, role: Role = "target", folders: Sequence[Path] = ()) -> Shape:
    """Return the shape that a word means.

    Args:
        name: A shape's id or alias, a model entry, a hub id that a shape knows, the embedded
            weights ("embedded:NAME"), a config.json or the folder that holds one.
        role: Which side of a model entry is meant.
        folders: Configuration folders beside the project's own.

    Raises:
        ConfigError: If nothing has this name, or it says too little about its shape.
    """
    shapes = _shapes(folders)
    for shape in shapes:
        if _is(name, shape) or name in shape.checkpoints:
            return shape
    if name in catalog.names("model", folders):
        return _of_entry(name, role, folders)
    if name.startswith(_EMBEDDED):
        return _from_file(weights_dir() / name.removeprefix(_EMBEDDED) / "config.json", name)
    path = Path(name)
    if path.is_dir():
        return _from_file(path / "config.json", path.name)
    if path.is_file():
        return _from_file(path, name)
    options = [word for shape in shapes for word in (shape.name, *shape.aliases)]
    options = list(dict.fromkeys([*options, *catalog.names("model", folders)]))
    raise catalog.unknown_entry("shape", name, options)


def _is(name: str, entry: Hardware | Shape) -> bool:
    """Return whether a word is an entry's id or one of its aliases, in any case."""
    return name.lower() in {word.lower() for word in (entry.name, *entry.aliases)}


def pair_of(
    profiles: Sequence[Profile], target: str | None, draft: str | None, folders: Sequence[Path] = ()
) -> tuple[Shape, Shape | None]:
    """Return the shapes to predict for; what the user did not name is what the files measured.

    Raises:
        ConfigError: If a name means nothing.
        UsageError: If the files measured several models, or one of unknown shape.
    """
    # where files of one model say different amounts about it, the one that says more comes last
    profiles = sorted(profiles, key=lambda profile: len(profile.models))
    drafting = [profile for profile in profiles if profile.drafter == "model"]
    target_shape = shape_named(target, "target", folders) if target else None
    draft_shape = shape_named(draft, "draft", folders) if draft else None
    if target_shape is None:
        target_shape = _measured({p.target: p for p in profiles}, "target", folders)
    if draft_shape is None and drafting:
        draft_shape = _measured({str(p.draft): p for p in drafting}, "draft", folders)
    return target_shape, draft_shape


def _measured(found: Mapping[str, Profile], role: Role, folders: Sequence[Path]) -> Shape:
    """Return the shape of the one model that was measured: as its files say, else by its name."""
    if len(found) > 1:
        raise UsageError(
            f"The files measured several {role}s",
            ", ".join(sorted(found)),
            f"Name one with --{role}.",
        )
    ((name, profile),) = found.items()
    recorded = profile.models.get(role)
    if recorded is not None:
        return recorded.shape
    try:
        return shape_named(name, role, folders)
    except ConfigError as error:
        raise UsageError(
            f"The shape of the measured {role} is not known",
            f"its files do not tell it, and no entry of conf/shape names '{name}'",
            f"Name one with --{role}: a shape, a model entry or a config.json.",
        ) from error


def _shapes(folders: Sequence[Path]) -> list[Shape]:
    entries = catalog.names("shape", folders)
    return [Shape.from_dict(catalog.load("shape", entry, folders), entry) for entry in entries]


def _of_entry(name: str, role: Role, folders: Sequence[Path]) -> Shape:
    checkpoint = catalog.load("model", name, folders).get(role)
    if not isinstance(checkpoint, str) or checkpoint == "???" or checkpoint == name:
        raise ConfigError(
            f"The model entry '{name}' names no {role}",
            "its shape follows from the checkpoint",
            f"Name a shape instead: --{role} 8b, or the path of a config.json.",
        )
    return shape_named(checkpoint, role, folders)


def _from_file(path: Path, name: str) -> Shape:
    try:
        values: Any = json.loads(read_text(path, _LARGEST_CONFIG))
    except OSError as error:
        raise ConfigError(
            f"Cannot read '{path}'", error.strerror or str(error), "Give a config.json."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' is not JSON", str(error), "Give a config.json.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"'{path}' holds no keys", "a config.json is a mapping")
    return Shape.from_config(values, name)
