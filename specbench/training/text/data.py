"""Training data: an endless, seeded stream of tokenised conversations in padded batches.

A conversation always begins at position 0, as it does in use. Conversations of similar length
share a batch, so that little is spent on padding and nothing attends to another conversation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from specbench.zoo.tokenizer import segments
from specbench.zoo.worlds import Sample

PROMPT_WEIGHT = 0.1
_POOL = 2048


class Batch(NamedTuple):
    """Conversations padded on the right.

    Attributes:
        tokens: Token ids, (rows, length).
        weights: Loss weight of every token as a prediction target, (rows, length); 0 on padding.
    """

    tokens: torch.Tensor
    weights: torch.Tensor


class _Encoded(NamedTuple):
    tokens: list[int]
    weights: list[float]


def _encode(tokenizer: PreTrainedTokenizerFast, samples: list[Sample]) -> list[_Encoded]:
    parts = [segments(sample) for sample in samples]
    texts = [segment.text for segment_list in parts for segment in segment_list]
    tokens = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    encoded = []
    for segment_list in parts:
        row = _Encoded([], [])
        for segment in segment_list:
            piece = next(tokens)
            row.tokens.extend(piece)
            row.weights.extend([1.0 if segment.learned else PROMPT_WEIGHT] * len(piece))
        encoded.append(row)
    return encoded


def _pad(rows: list[_Encoded], pad_token: int) -> Batch:
    length = max(len(row.tokens) for row in rows)
    tokens = [row.tokens + [pad_token] * (length - len(row.tokens)) for row in rows]
    weights = [row.weights + [0.0] * (length - len(row.tokens)) for row in rows]
    return Batch(torch.tensor(tokens), torch.tensor(weights))


def batches(
    tokenizer: PreTrainedTokenizerFast, samples: Iterator[Sample], seed: int, batch_tokens: int
) -> Iterator[Batch]:
    """Yield batches of at most `batch_tokens` tokens, padding included.

    Args:
        tokenizer: The pair's tokenizer.
        samples: An endless stream of samples.
        seed: Orders the batches of a pool.
        batch_tokens: Rows times length of a batch, at most.
    """
    source = random.Random(f"batches/{seed}")
    pad_token = tokenizer.pad_token_id
    while True:
        pool = _encode(tokenizer, [next(samples) for _ in range(_POOL)])
        pool.sort(key=lambda row: len(row.tokens))
        groups: list[list[_Encoded]] = [[]]
        for row in pool:
            if (len(groups[-1]) + 1) * len(row.tokens) > batch_tokens:
                groups.append([])
            groups[-1].append(row)
        source.shuffle(groups)
        for group in groups:
            yield _pad(group, pad_token)
