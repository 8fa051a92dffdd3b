"""The state that a training goes on from: weights, the optimizer's memory, and what happened.

It is one file, so that it is never half of one step and half of another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from specbench.errors import ConfigError
from specbench.training.shards import write_tensors

FILE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class History:
    """What a training did.

    Attributes:
        step: Steps that were taken.
        seconds: They took, checks included.
        tokens: Places that were learned.
        losses: Pairs of a step and the mean loss since the pair before.
        checks: What the held-out prompts said, one entry for each check.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)


def digest_of(identity: Mapping[str, Any]) -> str:
    """Return what tells one training from another."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def save_state(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    identity: str,
) -> None:
    """Keep the state; the one before stands until it is written.

    Raises:
        ResultsError: If it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            tensors[f"weight.{name}"] = parameter.detach()
            memory = optimizer.state.get(parameter, {})
            tensors |= {f"{key}.{name}": memory[key] for key in _MOMENTS if key in memory}
    about = {"history": json.dumps(vars(history)), "identity": identity}
    write_tensors(folder / FILE, tensors, about)


def load_state(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, identity: str
) -> History:
    """Take up the state of a folder; one that holds none is a beginning.

    Raises:
        ConfigError: If another training left it.
    """
    if not (folder / FILE).is_file():
        return History()
    with safe_open(folder / FILE, framework="pt") as file:
        about = file.metadata()
        if about["identity"] != identity:
            raise ConfigError(
                f"'{folder}' holds a training of another configuration, target or text",
                "its weights would go on from something else",
                "Choose another output=FOLDER, or begin anew with resume=false.",
            )
        names = set(file.keys())
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
            kept = [key for key in _MOMENTS if f"{key}.{name}" in names]
            for key in kept:
                tensor = file.get_tensor(f"{key}.{name}")
                on = "cpu" if key == "step" else parameter.device
                optimizer.state[parameter][key] = tensor.to(on)
    plain = json.loads(about["history"])
    plain["losses"] = [tuple(pair) for pair in plain["losses"]]
    return History(**plain)
