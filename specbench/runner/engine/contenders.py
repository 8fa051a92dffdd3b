"""The engines that are raced: ours, and transformers' own generation on the same weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from specbench.clock import clock_for
from specbench.decoding.base import Decoder
from specbench.decoding.ledger import Generation
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.rng import Streams

TRANSFORMERS = "transformers"

Prompt = tuple[int, ...]


class Decoded(NamedTuple):
    """One decoding of a prompt.

    Attributes:
        seconds: Of a token, after the first.
        tokens: What was emitted.
        host_share: Share of that time that was neither model's nor the device's; None where
            nobody looked.
    """

    seconds: float
    tokens: tuple[int, ...]
    host_share: float | None


def request_of(prompt: Prompt, tokens: int) -> Request:
    """Return the request to continue a prompt by so many tokens, greedily and without a stop."""
    name = f"bench-engine/{hash(prompt)}"
    return Request(prompt, tokens, Law(temperature=0.0), Streams(0, name))


def prompts_of(vocabulary: int, length: int, count: int, seed: int) -> list[Prompt]:
    """Return random prompts."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, vocabulary, (count, length), generator=generator).tolist()
    return [tuple(row) for row in rows]


def decode(decoder: Decoder, models: ModelPair, prompt: Prompt, tokens: int) -> Generation:
    """Run a decoder as a job does, its models settled before the clock starts."""
    models.settle(len(prompt) + tokens)
    return decoder.generate(models, request_of(prompt, tokens), clock_for(models.target.device))


def decoded(generation: Generation) -> Decoded:
    """Return what a generation says of decoding, its prefill left out."""
    rounds = generation.rounds[1:]
    time_ns = generation.total_ns - generation.prefill_ns
    tokens = len(generation.tokens) - generation.rounds[0].count.emitted
    host = sum(each.host_ns for each in rounds)
    return Decoded(time_ns / tokens * 1e-9, generation.tokens, host / time_ns)


class Ours:
    """Plain decoding in one of our engines."""

    def __init__(self, models: ModelPair) -> None:
        self.models = models
        self._decoder = Autoregressive()

    def decode(self, prompt: Prompt, tokens: int) -> Decoded:
        """Continue a prompt."""
        return decoded(decode(self._decoder, self.models, prompt, tokens))


class Theirs:
    """Transformers' `generate` with its defaults: eager kernels, a growing cache, greedy."""

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module = module
        self._device = device

    def decode(self, prompt: Prompt, tokens: int) -> Decoded:
        """Continue a prompt; the time of its first token is measured apart and taken off."""
        first, _ = self._generate(prompt, 1)
        whole, emitted = self._generate(prompt, tokens)
        return Decoded((whole - first) / (tokens - 1), emitted, None)

    @torch.inference_mode()
    def _generate(self, prompt: Prompt, tokens: int) -> tuple[float, tuple[int, ...]]:
        ids = torch.tensor([prompt], device=self._device)
        self._wait()
        begun = time.perf_counter()
        output = self._module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
        )
        self._wait()
        seconds = time.perf_counter() - begun
        emitted: Sequence[int] = output[0, len(prompt) :].tolist()
        return seconds, tuple(emitted)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
