"""Final hidden states of whole texts, as a datastore of states stores them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from specbench.models.base import Model, Taps, View

BATCH = 16
"""Texts that are read together."""


@torch.inference_mode()
def final_states(model: Model, texts: Iterable[Sequence[int]]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the final, normed hidden states of each text, [T, C] in float32, in order.

    Texts are padded on the right and read in batches: under a causal mask no state sees what
    stands behind it.

    Args:
        model: A model with `Capability.HIDDEN_STATES`.
        texts: Token ids of each text, at least one, at most the model's context.
    """
    batch: list[Sequence[int]] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield from _read(model, batch)
            batch = []
    if batch:
        yield from _read(model, batch)


def _read(model: Model, batch: list[Sequence[int]]) -> Iterator[npt.NDArray[np.float32]]:
    longest = max(len(text) for text in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.int64)
    for row, text in enumerate(batch):
        tokens[row, : len(text)] = torch.as_tensor(np.asarray(text, dtype=np.int64))
    taps = Taps((-1,))
    cache = model.new_cache(len(batch), longest)
    model.forward(tokens.to(model.device), cache, View(taps=taps, logits=False))
    states = taps.states[0].float().cpu().numpy()
    for row, text in enumerate(batch):
        yield states[row, : len(text)]
