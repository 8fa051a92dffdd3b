"""Random heads behind the models of an audit: exactness must hold for any head."""

from __future__ import annotations

from collections.abc import Sequence

from specbench.models.heads.load import family_class
from specbench.models.pair import ModelPair

SEED = 11


def with_head(models: ModelPair, families: Sequence[str], seed: int = SEED) -> ModelPair:
    """Give a pair of tables a random head of the first family that a method takes, if it needs one.

    A table's hidden states have as many channels as it has tokens.
    """
    if families:
        width = models.target.vocab_size
        models.head = family_class(families[0]).random(models.target, width, seed)
    return models
