"""Batches hold whole conversations, weigh answers above prompts, and repeat with their seed."""

from __future__ import annotations

import itertools

import torch

from specbench.training.text.data import PROMPT_WEIGHT, batches
from specbench.zoo.held_out import training_samples
from specbench.zoo.tokenizer import segments
from specbench.zoo.worlds import WORLDS


def _first_batches(tokenizer, seed: int, count: int = 6, tokens: int = 1024):
    return list(
        itertools.islice(
            batches(tokenizer, training_samples(seed, frozenset()), seed, tokens), count
        )
    )


def test_same_seed_same_batches(tokenizer) -> None:
    first, again = _first_batches(tokenizer, 3), _first_batches(tokenizer, 3)
    other = _first_batches(tokenizer, 4)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, other, strict=True))


def test_batches_keep_their_size_and_start_with_begin(tokenizer) -> None:
    for batch in _first_batches(tokenizer, 3):
        assert batch.tokens.numel() <= 1024
        assert batch.tokens.shape == batch.weights.shape
        assert (batch.tokens[:, 0] == tokenizer.bos_token_id).all()
        assert ((batch.tokens == tokenizer.pad_token_id) == (batch.weights == 0)).all()


def test_weights_mark_the_answers(tokenizer) -> None:
    texts = {}
    for sample in itertools.islice(training_samples(3, frozenset()), 256):
        parts = segments(sample)
        learned = [tokenizer.encode(part.text) for part in parts if part.learned]
        row = tuple(tokenizer.encode("".join(part.text for part in parts)))
        texts[row] = sum(map(len, learned))
    for batch in _first_batches(tokenizer, 3):
        for tokens, weights in zip(batch.tokens.tolist(), batch.weights, strict=True):
            row = tuple(t for t in tokens if t != tokenizer.pad_token_id)
            assert (weights == 1).sum().item() == texts[row]
            prompt = torch.isclose(weights, torch.tensor(PROMPT_WEIGHT)).sum().item()
            assert prompt == len(row) - texts[row]


def test_shares_are_kept() -> None:
    assert abs(sum(world.share for world in WORLDS.values()) - 1) < 1e-9
    samples = list(itertools.islice(training_samples(5, frozenset()), 4000))
    chats = sum(len(sample.turns) == 2 for sample in samples) / len(samples)
    # Binomial with 4,000 draws: five standard deviations are 0.023.
    assert abs(chats - WORLDS["tiny_chat"].share) < 0.023
