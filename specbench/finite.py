"""Whether the logits of a generation were numbers, learned without a look at them while it runs.

A model whose logits are not finite still decodes: argmax takes the first NaN, a draw the last
token, every arm takes the same, and a method is measured as a speedup over nothing. What chooses
tokens (`law`) therefore notes a number for each choice that is finite only where the logits were:
the largest logit, or the mass that was drawn from. Both are by-products of the choice. They stay
where they are until the clock has stopped, and are then looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from specbench.errors import SpecbenchError

_FEW = 4096
"""Logits up to which torch's maximum is as fast as numpy's, whose calls cost more."""


class NotFinite(SpecbenchError):
    """Logits were NaN or infinite, so that the tokens chosen from them mean nothing."""

    def __init__(self) -> None:
        super().__init__(
            "logits are not finite (NaN or infinite), so the tokens mean nothing and no time is "
            "kept; run in a wider dtype (model.dtype=float32), and check the checkpoint's weights "
            "if that does not help"
        )


class Noted:
    """The numbers that were noted during a generation."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def check(self) -> None:
        """Look at them; waits for their device.

        Raises:
            NotFinite: If one of them is NaN or infinite.
        """
        for device in {value.device for value in self.values}:
            here = [value.reshape(-1) for value in self.values if value.device == device]
            if not bool(torch.cat(here).isfinite().all()):
                raise NotFinite


_noted: Noted | None = None


@contextmanager
def watching() -> Iterator[Noted]:
    """Note what is chosen inside; elsewhere nothing is.

    Raises:
        NotFinite: In the place of an error inside that followed from such logits.
    """
    global _noted
    before, _noted = _noted, Noted()
    noted = _noted
    try:
        yield noted
    except Exception:
        noted.check()
        raise
    finally:
        _noted = before


def note(values: Tensor) -> None:
    """Note numbers of a choice, [...], that are finite exactly where its logits were."""
    if _noted is not None:
        _noted.values.append(values)


def argmax(logits: Tensor) -> Tensor:
    """Return the index of each row's largest logit, [...], the lowest on ties; a NaN is largest.

    Every greedy token is chosen here, and the logit noted. Torch's maximum and argmax are one
    call. On a CPU it looks at one logit after another; for many logits numpy's vectorised argmax
    takes a fraction of the time.

    Args:
        logits: [..., V].
    """
    few = logits.numel() <= _FEW or logits.dtype not in (torch.float32, torch.float64)
    if few or logits.device.type != "cpu":
        largest, index = logits.max(-1)
        note(largest)
        return index
    rows = logits.numpy()
    places = np.asarray(rows.argmax(-1))
    flat = rows.reshape(-1, rows.shape[-1])
    note(torch.from_numpy(flat[np.arange(len(flat)), places.reshape(-1)]))
    return torch.from_numpy(places)
