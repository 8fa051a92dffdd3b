"""A small tokenizer, trained once for all tests of this folder."""

from __future__ import annotations

import itertools
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    """Batches are made of few conversations."""
    from specbench.training.text import data

    monkeypatch.setattr(data, "_POOL", 128)


@pytest.fixture(scope="session")
def tokenizer():
    from specbench.zoo.held_out import training_samples
    from specbench.zoo.tokenizer import train_tokenizer

    samples = itertools.islice(training_samples(7, frozenset()), 1500)
    return train_tokenizer(text for s in samples for text in (*s.turns, *s.answers))
