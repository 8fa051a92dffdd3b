"""Read the entries of a configuration group straight from their YAML files.

Listing and showing must answer at once, so they do not compose a configuration: they read one
file. An entry may build on others of its group by a `defaults` list; those are merged first, as
in a composition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from specbench.bounded import read_text
from specbench.errors import ConfigError, did_you_mean
from specbench.paths import conf_dir
from specbench.schema.entry_types import check_types

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where PyYAML was built with it: ten times faster."""

LARGEST_ENTRY = 1 << 18
"""Bytes of the largest file that is read as an entry."""

MOST_REFERENCES = 32
"""The most references (`${...}`) to other keys in one file: what they stand for multiplies."""

MOST_VALUES = 100_000
"""The most values that an entry may stand for, with its aliases written out."""


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
        ConfigError: If there is no such entry, its file is not a YAML mapping, a value is of
            another kind than its key's, or what it builds on is not a list of entries or leads
            back to itself.
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
        if path.exists():
            node = read(path)
            merged: dict[str, Any] = {}
            for parent in _parents(node, path):
                merged = _merge(merged, _load(group, parent, folders, (*children, name)))
            entry = _merge(merged, {key: node[key] for key in node if key != "defaults"})
            check_types(group, entry, path)
            return entry
    raise unknown_entry(group, name, names(group, folders))


def read(path: Path) -> dict[str, Any]:
    """Return the keys of one YAML file, in bounded time.

    Raises:
        ConfigError: If it cannot be read, is no mapping, repeats a key, or stands for more values
            than a person writes (`check_bounds`).
    """
    loader = _loader(path)
    try:
        node = loader.get_single_node()
        _check_nodes(node, path)
        values = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise not_yaml(path, error) from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"'{path}' holds no keys", "an entry is a mapping of keys to values")
    return {str(key): value for key, value in values.items()}


def check_bounds(folder: Path, groups: Iterable[str]) -> None:
    """Refuse a folder of entries with a file that nothing could read in bounded time.

    What is no YAML is told when the file is chosen.

    Raises:
        ConfigError: If a file is no regular one, is too large, or stands for too many values.
    """
    for group in groups:
        for path in sorted((folder / group).rglob("*.yaml")):
            loader = _loader(path)
            with suppress(yaml.YAMLError, ValueError, RecursionError):
                _check_nodes(loader.get_single_node(), path, repeated=True)


def not_yaml(path: Path | str, error: Exception) -> ConfigError:
    """Return the error of a file that is no YAML, with the place where it ends to be one."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    why = f"line {mark.line + 1}: {problem}" if mark and problem else " ".join(str(error).split())
    if isinstance(error, RecursionError):
        why = "its values are nested too deeply"
    fix = "Mend that line, and indent with spaces, not tabs."
    return ConfigError(f"'{path}' is not YAML", why, fix)


def _loader(path: Path) -> Any:
    try:
        return _LOADER(read_text(path, LARGEST_ENTRY))
    except OSError as error:
        raise ConfigError(f"Cannot read '{path}'", error.strerror or str(error)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise not_yaml(path, error) from error


def _check_nodes(top: yaml.Node | None, path: Path, repeated: bool = False) -> None:
    """Refuse a document that repeats a key or whose aliases stand for too many values.

    Args:
        top: Its parsed form, in which an alias is the very node that it names.
        path: The file.
        repeated: Whether keys may be repeated.
    """
    sizes: dict[int, int] = {}
    references = 0

    def size_of(node: yaml.Group) -> int:
        nonlocal references
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = MOST_VALUES  # what an alias to its own parent stands for
        size = 1
        if isinstance(node, yaml.ScalarNode):
            references += str(node.value).count("${")
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key, times in Counter(keys).items() if times > 1), None)
            if twice is not None and not repeated:
                raise ConfigError(
                    f"'{path}' has the key '{twice}' twice",
                    f"one of them, from line {node.start_mark.line + 1} on, would be lost",
                    "Take one of them out.",
                )
            size += sum(size_of(key) + size_of(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            size += sum(size_of(item) for item in node.value)
        sizes[id(node)] = size
        return size

    if top is None:
        return
    if size_of(top) > MOST_VALUES:
        raise ConfigError(
            f"'{path}' stands for too many values",
            f"with its aliases written out it has more than {MOST_VALUES:,}",
            "Write the values themselves.",
        )
    if references > MOST_REFERENCES:
        raise ConfigError(
            f"'{path}' refers to other keys too often",
            f"it holds {references} references (${{...}}), and {MOST_REFERENCES} are read",
            "Write the values themselves.",
        )


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
