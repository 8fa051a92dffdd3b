"""One descent for every recipe, alone or in a group of processes.

The number of steps is fixed, so that a seed and a number of steps name the weights, up to the
rounding of the machine. In a group, one process of one thread runs per core; each takes one batch
of every step, and gradients are summed once a step. On a machine that also does other work this
loses far less than one process of several threads, whose operators wait for each other.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

PROCESSES = 2
_WARM_UP, _DECAY_FROM = 0.02, 0.35
_MATRIX_RATE, _OTHER_RATE = 4e-3, 3e-3
_WEIGHT_DECAY = 0.02


class Loss(NamedTuple):
    """What one step learns from.

    Attributes:
        value: What is descended; over the processes of a group its gradients are summed.
        shown: What is printed.
        words: Further words of a line.
    """

    value: Tensor
    shown: float
    words: Callable[[], str] = lambda: ""


class Log(NamedTuple):
    """How a descent tells how far it is.

    Attributes:
        name: Begins each line.
        every: Steps between two lines.
        memory: Weight of the earlier steps in the loss that is printed.
    """

    name: str
    every: int
    memory: float = 0.0


def descend(
    parameters: Sequence[nn.Parameter],
    steps: int,
    loss: Callable[[int], Loss],
    take: Callable[[int], None],
    log: Log,
    *,
    save: Callable[[], None] | None = None,
    save_every: int = 0,
    clip: bool = True,
) -> None:
    """Descend for a fixed number of steps; in a group the first process prints and saves.

    Args:
        parameters: What is trained.
        steps: How many.
        loss: Returns the loss of a step.
        take: Takes a step of the optimizer.
        log: What is printed.
        save: Writes what is trained; called behind the last step too.
        save_every: Steps between two calls of it.
        clip: Whether gradients are cut to norm 1.
    """
    together = dist.is_initialized()
    first = not together or dist.get_rank() == 0
    begun, running = time.monotonic(), 0.0
    for step in range(steps):
        found = loss(step)
        for parameter in parameters:
            parameter.grad = None
        found.value.backward()
        if together:
            _sum_gradients(parameters)
        if clip:
            nn.utils.clip_grad_norm_(parameters, 1.0)
        take(step)
        running = log.memory * running + (1 - log.memory) * found.shown if step else found.shown
        last = step + 1 == steps
        if first and ((step + 1) % log.every == 0 or last):
            minutes = (time.monotonic() - begun) / 60
            parts = (f"{log.name} step {step + 1}/{steps}", f"loss {running:.4f}", found.words())
            print("  ".join(filter(None, (*parts, f"{minutes:.1f} min"))), flush=True)
        if first and save is not None and (last or (save_every and (step + 1) % save_every == 0)):
            save()


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients of all processes, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


class Optimizers(NamedTuple):
    """The two optimizers of one process, for a transformer.

    Matrices inside the layers are trained with Muon (orthogonalised momentum; Jordan et al. 2024,
    "Muon: an optimizer for hidden layers in neural networks"), which needs fewer tokens than AdamW
    at this size; embeddings, head and norms are trained with AdamW.

    Attributes:
        matrices: Muon over this process's part of the matrices.
        others: AdamW over every other parameter, the same in every process.
        owners: The process that updates each matrix, for all matrices of the model.
    """

    matrices: torch.optim.Optimizer
    others: torch.optim.Optimizer
    owners: list[tuple[nn.Parameter, int]]

    @classmethod
    def of(cls, model: nn.Module, rank: int, processes: int) -> Optimizers:
        """Divide the matrices of a model among processes."""
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            matrix = ".layers." in name and "norm" not in name and parameter.ndim == 2
            (matrices if matrix else others).append(parameter)
        owners = [(parameter, index % processes) for index, parameter in enumerate(matrices)]
        return cls(
            torch.optim.Muon(
                [parameter for parameter, owner in owners if owner == rank],
                lr=_MATRIX_RATE,
                weight_decay=_WEIGHT_DECAY,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                others, lr=_OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
            ),
            owners,
        )

    def take(self, factor: float) -> None:
        """Take one step at a part of the rates, and share what other processes updated."""
        for optimizer, base in zip(self[:2], (_MATRIX_RATE, _OTHER_RATE), strict=True):
            set_rate(optimizer, base * factor)
            optimizer.step()
        for parameter, owner in self.owners:
            dist.broadcast(parameter.data, owner)


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rates: linear warm-up, plateau, linear decay to zero."""
    done = (step + 1) / steps
    return min(1.0, done / _WARM_UP, max(0.0, (1 - step / steps) / (1 - _DECAY_FROM)))


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = value


def begin_as_identity(model: Any, norm: str) -> None:
    """Make the layers of a transformers model begin as the identity, and train faster on a CPU.

    Args:
        model: The model, in place.
        norm: Name of its class of norms. One fused operator is the same function with the same
            parameter name.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
    config = model.config
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == norm:
                setattr(module, name, nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps))


def in_processes(work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in a group of processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meet"
        multiprocessing.spawn(_member, args=(meeting, work, *arguments), nprocs=PROCESSES)


def _member(rank: int, meeting: str, work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES)
    work(*arguments)
    dist.destroy_process_group()
