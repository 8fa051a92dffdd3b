"""Turn a configuration node with a `_target_` into the object that it names.

The same convention as Hydra's `instantiate`, in the few lines that this project needs, so that
only `hosting/` depends on Hydra and every error names the path that failed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from specbench.errors import ConfigError, did_you_mean


def locate(path: str) -> Any:
    """Import and return what a dotted path names.

    Raises:
        ConfigError: If the module or the attribute does not exist.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise ConfigError(
            f"'{path}' is not an importable path",
            "a _target_ names a module and an attribute, such as package.module.Class",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Cannot import '{path}'",
            f"there is no module '{error.name}'",
            "Install the package that holds it, or correct the _target_.",
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"Cannot import '{path}'",
            f"module '{module_name}' has no '{attribute}'",
            did_you_mean(attribute, vars(module)),
        )
    return getattr(module, attribute)


def instantiate(node: Any, **extra: Any) -> Any:
    """Build the object that a node describes; nested nodes are built first.

    Args:
        node: A mapping with `_target_` and keyword arguments, or any plain value.
        **extra: Keyword arguments added to the outermost call.

    Raises:
        ConfigError: If the target does not exist or refuses its arguments.
    """
    if isinstance(node, Mapping):
        arguments = {key: instantiate(value) for key, value in node.items() if key != "_target_"}
        if "_target_" not in node:
            return arguments
        target = locate(str(node["_target_"]))
        try:
            return target(**arguments, **extra)
        except TypeError as error:
            raise ConfigError(
                f"'{node['_target_']}' does not accept its arguments", str(error)
            ) from error
    if isinstance(node, (list, tuple)):
        return [instantiate(item) for item in node]
    return node
