"""The small tokenizer of the training tests."""

from __future__ import annotations

from tests.unit.training.conftest import tokenizer

__all__ = ["tokenizer"]
