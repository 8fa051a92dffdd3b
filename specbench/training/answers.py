"""Answers to learn from: many prompts are continued together, by plain decoding.

A row draws with the numbers that `Streams` gives its request, as a request that is decoded alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from specbench.cache import SlotCache
from specbench.law import Law, draw
from specbench.models.base import Model, View
from specbench.rng import Purpose, Streams


@torch.inference_mode()
def write_answers(
    model: Model,
    prompts: Sequence[Sequence[int]],
    streams: Sequence[Streams],
    law: Law,
    stop_ids: Collection[int],
    limit: int,
) -> list[list[int]]:
    """Continue every prompt until a stop token, which is kept, or to the limit.

    Args:
        model: A lean model: rows are padded on the left, which others do not know.
        prompts: Token ids, together no longer than the model's context with `limit` behind.
        streams: The random numbers of each prompt.
        law: Whose token is next; without a penalty, which would need a history.
        stop_ids: Tokens that end an answer.
        limit: Most tokens of an answer.

    Returns:
        The tokens of each answer.
    """
    assert not law.needs_history
    width = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
    cache = model.new_cache(len(prompts), width + limit)
    assert isinstance(cache, SlotCache)
    cache.padding = tuple(width - len(prompt) for prompt in prompts)
    fed = tokens.to(model.device)
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    for step in range(limit):
        logits = model.forward(fed, cache, View(last=1))[:, 0]
        fed = _next(logits, law, streams, [len(prompt) + step for prompt in prompts])
        for row, token in enumerate(fed[:, 0].tolist()):
            if row in open_rows:
                answers[row].append(token)
                if token in stop_ids:
                    open_rows.discard(row)
        if not open_rows:
            break
    return answers


def _next(logits: Tensor, law: Law, streams: Sequence[Streams], places: list[int]) -> Tensor:
    """Return the next token of every row, [B, 1]."""
    if law.greedy:
        return law.argmax(logits)[:, None]
    numbers = [
        stream.uniform(place, Purpose.SAMPLE) for stream, place in zip(streams, places, strict=True)
    ]
    uniform = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
    return draw(law.probabilities(logits), uniform)[:, None]
