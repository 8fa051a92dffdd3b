"""What a training learns from: answers that the frozen target wrote, and its states along them.

The corpus of a target, a task and a temperature is written once, into the cache folder, and every
recipe reads it. Batches follow from the seed and their number alone, so that a training that goes
on meets those that it would have met.

Shape legend: B rows, T tokens, C channels.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.training.shards import Shard

_POOL = 512
"""Documents that are sorted by length together, so that little of a batch is padding."""


class Document(NamedTuple):
    """One answer behind its prompt.

    Attributes:
        tokens: Token ids of both.
        prompt: Tokens of the prompt.
        shard: Index of the file that holds it.
        start: Its first token there.
    """

    tokens: list[int]
    prompt: int
    shard: int
    start: int


class Batch(NamedTuple):
    """Documents padded on the right.

    Attributes:
        tokens: [B, T] int64.
        learned: [B, T] bool, the tokens of answers.
        lengths: Tokens of each row.
        states: What the target's taps hand out, by layer, [B, T, C] each; zero on padding.
    """

    tokens: Tensor
    learned: Tensor
    lengths: tuple[int, ...]
    states: dict[int, Tensor]

    @property
    def predicting(self) -> Tensor:
        """The places whose next token is learned, [B, T] bool; the last one has none."""
        shifted = torch.zeros_like(self.learned)
        shifted[:, :-1] = self.learned[:, 1:]
        return shifted

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        states = {layer: state.to(device) for layer, state in self.states.items()}
        return Batch(self.tokens.to(device), self.learned.to(device), self.lengths, states)


def padded(rows: Sequence[Sequence[int]], prompts: Sequence[int]) -> Batch:
    """Return documents as a batch without states."""
    lengths = tuple(map(len, rows))
    tokens = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    learned = torch.zeros(len(rows), max(lengths), dtype=torch.bool)
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        tokens[index, : len(row)] = torch.tensor(row)
        learned[index, prompt : len(row)] = True
    return Batch(tokens, learned, lengths, {})


def packed(rows: Sequence[Sequence[int]], prompts: Sequence[int]) -> dict[str, Tensor]:
    """Return documents as the tensors of a file."""
    return {
        "tokens": torch.tensor([token for row in rows for token in row], dtype=torch.int32),
        "lengths": torch.tensor(list(map(len, rows)), dtype=torch.int32),
        "prompts": torch.tensor(list(prompts), dtype=torch.int32),
    }


class Corpus:
    """Documents to learn from, and others to check on.

    Args:
        shards: Files of `packed` documents.
        held_out: How many of the last files are those to check on.
    """

    def __init__(self, shards: Sequence[Shard], held_out: int) -> None:
        self.documents: list[Document] = []
        self.held_out: list[Document] = []
        self._states: dict[tuple[int, int], Shard] = {}
        sha = hashlib.sha256()
        for number, shard in enumerate(shards):
            tokens = shard.whole("tokens").tolist()
            lengths = shard.whole("lengths").tolist()
            prompts = shard.whole("prompts").tolist()
            sha.update(repr((tokens, lengths, prompts)).encode())
            to = self.documents if number < len(shards) - held_out else self.held_out
            start = 0
            for length, prompt in zip(lengths, prompts, strict=True):
                to.append(Document(tokens[start : start + length], prompt, number, start))
                start += length
        self.digest = f"sha256:{sha.hexdigest()[:32]}"

    def of_shard(self, number: int) -> list[Document]:
        """Return the documents of one file, in order."""
        return [each for each in (*self.documents, *self.held_out) if each.shard == number]

    def keep(self, layer: int, number: int, shard: Shard) -> None:
        """Read the states of a layer along the documents of a file from another file."""
        self._states[layer, number] = shard

    def batch(self, documents: Sequence[Document], layers: Sequence[int]) -> Batch:
        """Return documents with the states that are kept for them."""
        batch = padded([each.tokens for each in documents], [each.prompt for each in documents])
        for layer in layers:
            rows = [
                self._states[layer, each.shard].part(
                    "states", each.start, each.start + len(each.tokens)
                )
                for each in documents
            ]
            state = torch.zeros(*batch.tokens.shape, rows[0].shape[-1])
            for index, row in enumerate(rows):
                state[index, : len(row)] = row
            batch.states[layer] = state
        return batch


class Order:
    """In which batches a corpus is read: a function of the seed and the number of a step.

    Args:
        lengths: Tokens of each document.
        batch_tokens: Rows times longest row of a batch, at most.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_tokens: int, seed: int) -> None:
        self._lengths, self._most, self._seed = lengths, batch_tokens, seed
        self._epoch = lru_cache(maxsize=2)(self._plan)

    def of(self, step: int) -> list[int]:
        """Return the documents of a step."""
        epoch = 0
        while step >= len(self._epoch(epoch)):
            step -= len(self._epoch(epoch))
            epoch += 1
        return self._epoch(epoch)[step]

    def _plan(self, epoch: int) -> list[list[int]]:
        source = random.Random(f"order/{self._seed}/{epoch}")
        order = list(range(len(self._lengths)))
        source.shuffle(order)
        pools = [order[start : start + _POOL] for start in range(0, len(order), _POOL)]
        groups = [group for pool in pools for group in grouped(pool, self._lengths, self._most)]
        source.shuffle(groups)
        return groups


def grouped(documents: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return documents of like length in batches; one that is too long is a batch of its own.

    Args:
        documents: Their indices.
        lengths: Tokens of every document, by index.
        batch_tokens: Rows times longest row of a batch, at most.
    """
    groups: list[list[int]] = [[]]
    for index in sorted(documents, key=lengths.__getitem__):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[index] > batch_tokens:
            groups.append([])
        groups[-1].append(index)
    return groups
