"""Of what kind the values of an entry are, where listing and showing look into them.

A run validates everything; `list`, `show` and completion read entries without that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specbench.errors import ConfigError

_WORDS: dict[str, tuple[type, ...]] = {
    "a group of keys": (Mapping,),
    "a list": (list,),
    "a number": (int, float),
    "a text": (str,),
}

_GROUP, _LIST, _NUMBER, _TEXT = _WORDS

_KINDS: dict[str, dict[str, str]] = {
    "method": {
        "decoder": _GROUP,
        "family": _TEXT,
        "modality": _TEXT,
        "needs": _LIST,
        "paper": _GROUP,
        "parameters": _GROUP,
    },
    "model": {
        "loader": _GROUP,
        "loader.grid": _GROUP,
        "methods": _GROUP,
        "sampling": _GROUP,
        "target": _TEXT,
        "task": _TEXT,
        "training_task": _TEXT,
        "weights_gb": _NUMBER,
    },
    "task": {"metrics": _LIST, "source": _GROUP, "source.kind": _TEXT, "source.tasks": _LIST},
    "metric": {"metric": _GROUP, "name": _TEXT, "parameters": _GROUP},
    "hardware": {
        "aliases": _LIST,
        "bandwidth": _NUMBER,
        "flops": _GROUP,
        "flops.bfloat16": _NUMBER,
        "memory_bytes": _NUMBER,
    },
    "recipe": {"data": _GROUP, "learner": _GROUP, "needs": _LIST, "optimizer": _GROUP},
    "shape": {"aliases": _LIST, "heads": _NUMBER, "key_value_heads": _NUMBER},
}
"""By group and dotted key; a key that is absent or null is of no kind."""


def check_types(group: str, entry: Mapping[str, Any], path: Path) -> None:
    """Refuse a value of another kind than its key's.

    Raises:
        ConfigError: If there is one; it names the file and the key.
    """
    for key, words in _KINDS.get(group, {}).items():
        value: Any = entry
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, _WORDS[words]):
            shown = str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..."
            raise ConfigError(
                f"'{key}' of '{path}' cannot be {shown!r}", f"it must be {words}", "Correct it."
            )
