"""Procedural worlds in the shape of real text benchmarks, as pure functions of a random source.

Each world draws conversations from a space large enough that held-out prompts are really unseen.
`WORLDS` names them by the task that holds their frozen prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

from specbench.zoo.worlds import (
    conversations,
    fact_questions,
    functions,
    rewriting,
    toy_language,
    word_problems,
)
from specbench.zoo.worlds.sample import Reference, Sample


class World(NamedTuple):
    """One world: how it draws a sample, and its share of the training data."""

    generate: Callable[[random.Random], Sample]
    share: float


WORLDS = MappingProxyType(
    {
        "tiny_math": World(word_problems.generate, 0.34),
        "tiny_code": World(functions.generate, 0.24),
        "tiny_chat": World(conversations.generate, 0.09),
        "tiny_rewrite": World(rewriting.generate, 0.12),
        "tiny_qa": World(fact_questions.generate, 0.11),
        "tiny_translate": World(toy_language.generate, 0.10),
    }
)

__all__ = ["WORLDS", "Reference", "Sample", "World"]
