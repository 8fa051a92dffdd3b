"""Read the entries of a configuration group straight from their YAML files.

Listing and showing must answer at once, so they do not compose a configuration: they read one
file. An entry may build on others of its group by a `defaults` list; those are merged first, as
in a composition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from specbench.errors import ConfigError, did_you_mean
from specbench.paths import conf_dir

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where PyYAML was built with it: ten times faster."""


def names(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return the sorted ids of a group, such as "method".

    Args:
        group: A folder of the configuration.
        folders: Folders beside the project's own that may hold the group too.
    """
    found: set[str] = set()
    for folder in (*folders, conf_dir()):
        found.update(path.stem for path in (folder / group).glob("*.yaml"))
    return sorted(found)


def load(group: str, name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return one entry as plain values; interpolations stay as they are written.

    Args:
        group: A folder of the configuration.
        name: The entry's id.
        folders: Folders beside the project's own, searched first.

    Raises:
        ConfigError: If there is no such entry, its file is not a YAML mapping, or what it builds
            on is not a list of entries or leads back to itself.
    """
    return _load(group, name, folders, ())


def plural(group: str) -> str:
    """Return what a listing of a group is called: "methods", "hardware"."""
    return group if group == "hardware" else f"{group}s"


def unknown_entry(group: str, name: str, options: Sequence[str]) -> ConfigError:
    """Return the error for a name that a group has not."""
    near = did_you_mean(name, options)
    return ConfigError(
        f"Unknown {group} '{name}'" + (f". {near}" if near else ""),
        f"available: {', '.join(options)}" if options else f"there is no {group} at all",
        f"Type 'specbench list {plural(group)}' to see them all.",
    )


def _load(
    group: str, name: str, folders: Sequence[Path], children: tuple[str, ...]
) -> dict[str, Any]:
    """Return an entry; `children` are those that build on it."""
    if name in children:
        raise ConfigError(
            f"The {group} '{name}' builds on itself",
            " -> ".join((*children, name)),
            "Take one of them out of the list 'defaults'.",
        )
    for folder in (*folders, conf_dir()):
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            node = _read(path)
            merged: dict[str, Any] = {}
            for parent in _parents(node, path):
                merged = _merge(merged, _load(group, parent, folders, (*children, name)))
            return _merge(merged, {key: node[key] for key in node if key != "defaults"})
    raise unknown_entry(group, name, names(group, folders))


def _read(path: Path) -> dict[str, Any]:
    try:
        node = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except OSError as error:
        raise ConfigError(f"Cannot read '{path}'", error.strerror or str(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}' is not YAML", " ".join(str(error).split())) from error
    if not isinstance(node, Mapping):
        raise ConfigError(f"'{path}' holds no keys", "an entry is a mapping of keys to values")
    return {str(key): value for key, value in node.items()}


def _parents(node: Mapping[str, Any], path: Path) -> list[str]:
    """Return the entries that a node builds on, in the order in which they are merged."""
    parents = node.get("defaults", [])
    if not isinstance(parents, list) or not all(isinstance(each, str) for each in parents):
        raise ConfigError(
            f"'defaults' of '{path}' is no list of names",
            "an entry builds on others of its group by their ids",
            "Write defaults: [ID, _self_].",
        )
    return [parent for parent in parents if parent != "_self_"]


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged
