"""One descent for every recipe, alone or in a group of processes.

The number of steps is fixed, so that a seed and a number of steps name the weights, up to the
rounding of the machine. In a group, one process of one thread runs per core; each takes one batch
of every step, and gradients are summed once a step. On a machine that also does other work this
loses far less than one process of several threads, whose operators wait for each other.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn

from specbench.errors import TrainingError

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
    save: Callable[[int], None] | None = None,
    save_every: int = 0,
    clip: float | None = 1.0,
    start: int = 0,
    kept: Callable[[int], int] | None = None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Descend for a fixed number of steps; in a group the first process prints and saves.

    Args:
        parameters: What is trained.
        steps: How many.
        loss: Returns the loss of a step.
        take: Takes a step of the optimizer.
        log: What is printed.
        save: Writes what is trained after so many steps; called behind the last one too.
        save_every: Steps between two calls of it.
        clip: The norm that gradients are cut to, or None.
        start: Steps that an earlier process took.
        kept: Returns after how many steps the state was kept that stands at a step; None: at
            every call of `save`.
        say: Prints a line.

    Raises:
        TrainingError: If a loss or a gradient is not finite; no step is taken then.
    """
    first = PartialState().is_main_process
    begun, running = time.monotonic(), 0.0
    for step in range(start, steps):
        found = loss(step)
        for parameter in parameters:
            parameter.grad = None
        found.value.backward()
        _sum_gradients(parameters)
        norm = nn.utils.get_total_norm(
            [parameter.grad for parameter in parameters if parameter.grad is not None]
        )
        if not math.isfinite(found.shown) or not norm.isfinite():
            at = kept(step) if kept is not None else step - step % max(save_every, 1)
            raise _not_finite(step, found.shown, at if save is not None else 0)
        if clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        take(step)
        running = log.memory * running + (1 - log.memory) * found.shown
        if step == start:
            running = found.shown
        last = step + 1 == steps
        if first and ((step + 1) % log.every == 0 or last):
            minutes = (time.monotonic() - begun) / 60
            parts = (f"{log.name} step {step + 1}/{steps}", f"loss {running:.4f}", found.words())
            say("  ".join(filter(None, (*parts, f"{minutes:.1f} min"))))
        if first and save is not None and (last or (save_every and (step + 1) % save_every == 0)):
            save(step + 1)


def _not_finite(step: int, loss: float, kept: int) -> TrainingError:
    what = f"loss is {loss}" if not math.isfinite(loss) else "gradient is not finite"
    return TrainingError(
        f"The {what} at step {step + 1}",
        f"the state after step {kept} is kept" if kept else "no state was kept yet",
        "Lower the learning rate, or cut gradients to a smaller norm.",
    )


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients of all processes, in one message."""
    if PartialState().num_processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="sum")
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


def factor_of(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Return the factor on a learning rate: a linear warm-up, then "constant" or down to zero.

    Args:
        step: From 0.
        steps: Of the whole descent.
        schedule: "constant", "linear" or "cosine".
        warmup: Share of the steps in which the rate rises.
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / max(rising, 1)
    left = 1 - (step - rising) / (steps - rising)
    shape = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
    return min(1.0, shape[schedule])


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
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    multiprocessing.spawn(_member, args=(port, work, *arguments), nprocs=PROCESSES)


def _member(rank: int, port: int, work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(PROCESSES),
        LOCAL_WORLD_SIZE=str(PROCESSES),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    PartialState(cpu=True)
    work(*arguments)
    dist.destroy_process_group()
