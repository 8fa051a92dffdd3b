"""A decoder's whole output law for one request, and how far two laws lie apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from specbench.audit.enumeration import (
    Distribution,
    GuessedScript,
    Script,
    Tokens,
    true_law,
    walk,
)
from specbench.clock import CpuClock
from specbench.decoding.base import Decoder
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request, StopTokens
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.rng import Streams

__all__ = ["GuessedScript", "Script", "distance", "output_law", "true_law"]


def output_law(
    decoder: Decoder,
    models: ModelPair,
    law: Law,
    prompt: Sequence[int],
    max_new_tokens: int,
    stop: Collection[int] = (),
    draft_law: Law | None = None,
) -> dict[Tokens, float]:
    """Return {emitted tokens: probability} of a decoder, exactly, however many paths it takes."""
    streams, stops = Streams(0, "enumeration"), StopTokens(frozenset(stop))
    request = Request(tuple(prompt), max_new_tokens, law, streams, stops, draft_law)

    def generate(script: Script) -> Generation:
        return decoder.generate(models, replace(request, choices=script), CpuClock())

    return dict(walk(generate, GuessedScript).law)


def distance(left: Distribution, right: Distribution) -> float:
    """Return the largest difference of two laws over sequences."""
    return max(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in {*left, *right})
