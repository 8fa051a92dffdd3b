"""Measure the engines on random weights in a real shape, without a download.

Everything that is compared takes turns in one process, on the same weights. What is asked of the
engine (`Figures.goals`) is asked on a GPU alone: a CPU shows that all of it works.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch

from specbench.errors import ConfigError, ModelError
from specbench.models.checkpoint import free_memory
from specbench.models.decoder import LeanDecoder
from specbench.models.engines import run_by
from specbench.models.load import dtype_of
from specbench.models.pair import ModelPair
from specbench.models.random_weights import (
    RandomModel,
    has_head_norm,
    random_module,
    random_weights,
)
from specbench.runner.bandwidth import copy_bandwidth
from specbench.runner.engine.contenders import TRANSFORMERS, Decoded, Ours, Theirs, prompts_of
from specbench.runner.engine.figures import Figures, Plain, Setting, Synthetic, Verifying
from specbench.runner.engine.steps import COUNTS, Steps, measure_verifying, tree_tokens
from specbench.runner.engine.synthetic import measure_synthetic
from specbench.runner.engine.timing import in_turns, spread
from specbench.runner.provenance import device_name, provenance
from specbench.schema.shape import Shape

SMALL = Shape("small", "a small Llama for CPUs", 512, 8, 8, 4, 64, 1408, 8192, tied=False)
"""The shape of a CPU: 32 million weights, more than its caches hold."""

SMALL_DRAFT = Shape("small_draft", "a smaller Llama", 128, 2, 2, 1, 64, 384, 8192, tied=False)

_SLACK = 1.15
_WARM_UPS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """What to measure.

    Attributes:
        shape: Of the target.
        draft: Of the draft; its vocabulary is replaced by the target's.
        engines: Ours, the main one first: "graph", "kernels", "compile", "eager".
        transformers: Whether `generate` is raced too, where the shape is one of its Llamas.
        dtype: A dtype's name, or "auto".
        device: Where.
        context: Tokens in the cache at the start.
        tokens: Tokens to decode; two or more.
        acceptance: Of the synthetic drafts.
        draft_length: Of the synthetic drafts.
        rounds: How often everything is measured.
        seed: Of weights and prompts.
        counts: Tokens of the forwards whose cost is measured, 1 among them.
    """

    shape: Shape
    draft: Shape
    engines: tuple[str, ...]
    transformers: bool
    dtype: str
    device: torch.device
    context: int
    tokens: int
    acceptance: float
    draft_length: int
    rounds: int = 5
    seed: int = 0
    counts: tuple[int, ...] = COUNTS

    def __post_init__(self) -> None:
        least = {"context": 1, "tokens": 2, "draft_length": 1, "rounds": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                option = name.replace("_", "-")
                raise ConfigError(
                    f"--{option} cannot be {getattr(self, name)}", f"it is {minimum} or more"
                )
        if not 0 <= self.acceptance <= 1:
            raise ConfigError(
                f"--acceptance cannot be {self.acceptance:g}", "it is a probability from 0 to 1"
            )

    @property
    def longest(self) -> int:
        """Slots that a sequence can need."""
        return self.context + max(self.tokens, *self.counts, tree_tokens()) + self.draft_length + 1

    def model(self, shape: Shape) -> RandomModel:
        """Return the random model of a shape."""
        dtype = dtype_of(self.dtype, self.device, small=True)
        return RandomModel(shape, self.longest, self.device, dtype, self.seed)


class Memory(NamedTuple):
    """Bytes that a question needs and that are free."""

    needed: float
    free: float


def memory_of(question: Question) -> Memory:
    """Return the memory that the models and caches of a question need, and what is free."""
    target, draft = question.model(question.shape), question.model(_matching(question))
    copies = 1 + _twice(question)
    itemsize = target.dtype.itemsize
    engines = len(question.engines)
    slots = 2 * max(question.longest + 256, 2048)
    cache = slots * itemsize * (target.shape.cache_values + draft.shape.cache_values) * engines
    logits = 4 * question.context * question.shape.vocabulary
    weights = copies * target.weight_bytes + draft.weight_bytes
    untied = question.shape.tied * question.shape.vocabulary * question.shape.hidden_size * itemsize
    return Memory(_SLACK * (weights + untied + cache + logits), free_memory(question.device))


def check_memory(question: Question) -> None:
    """Refuse a question whose models do not fit, before anything is allocated.

    Raises:
        ModelError: If they do not.
    """
    needed, free = memory_of(question)
    if needed > free:
        also = ", or leave transformers' copy out by --no-transformers" if _twice(question) else ""
        raise ModelError(
            f"'{question.shape.name}' needs about {needed / 1e9:.1f} GB here",
            f"{question.device} has {free / 1e9:.1f} GB free",
            f"Choose a smaller --shape{also}.",
        )


def _twice(question: Question) -> bool:
    """Say whether the weights stand in memory a second time, as a module of transformers."""
    return question.transformers and not has_head_norm(question.shape)


def measure(question: Question, say: Say = lambda line: None) -> Figures:
    """Measure everything for one shape.

    Raises:
        ModelError: If the models do not fit into memory, or an engine does not run here.
    """
    check_memory(question)
    notes: list[str] = []
    say("copy bandwidth")
    bandwidth = copy_bandwidth(question.device)
    say(f"random weights of {question.shape.name}")
    pairs = _pairs(question)
    theirs = None
    if _twice(question):
        module = random_module(question.model(question.shape))
        theirs = Theirs(module, question.device)
    elif question.transformers:
        notes.append(
            f"transformers was left out: its Llama has no norm of queries and keys, which "
            f"{question.shape.name} has"
        )
    prompts = prompts_of(
        question.shape.vocabulary, question.context, question.rounds, question.seed
    )
    plain = _plain(question, pairs, theirs, prompts, say)
    verifying = _verifying(question, pairs, say)
    say(f"synthetic drafts, {question.engines[0]}")
    synthetic = _synthetic(question, pairs[question.engines[0]], prompts, notes)
    del pairs, theirs
    release()
    return Figures(_setting(question), bandwidth, plain, verifying, synthetic, tuple(notes))


def release() -> None:
    """Give the memory of the last shape back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _matching(question: Question) -> Shape:
    """Return the draft's shape with the target's vocabulary."""
    return replace(question.draft, vocabulary=question.shape.vocabulary)


def _pairs(question: Question) -> dict[str, ModelPair]:
    """Return target and draft in every engine; all engines share the weights."""
    target = LeanDecoder(random_weights(question.model(question.shape)), question.shape.name)
    draft = LeanDecoder(random_weights(question.model(_matching(question))), question.draft.name)
    return {
        engine: ModelPair("random", run_by(target, engine), run_by(draft, engine))
        for engine in question.engines
    }


def _plain(
    question: Question,
    pairs: dict[str, ModelPair],
    theirs: Theirs | None,
    prompts: Sequence[tuple[int, ...]],
    say: Say,
) -> tuple[Plain, ...]:
    racers: dict[str, Ours | Theirs] = {name: Ours(pair) for name, pair in pairs.items()}
    if theirs is not None:
        racers[TRANSFORMERS] = theirs
    for name, racer in racers.items():
        slow = ", which compiles for minutes" if name == "compile" else ""
        say(f"plain decoding, {name}: warming up{slow}")
        for _ in range(_WARM_UPS if name != TRANSFORMERS else 1):
            racer.decode(prompts[0], question.tokens)
    say("plain decoding")
    results: dict[str, list[Decoded]] = {name: [] for name in racers}

    def run(name: str) -> float:
        results[name].append(racers[name].decode(prompts[len(results[name])], question.tokens))
        return results[name][-1].seconds

    taken = in_turns({name: partial(run, name) for name in racers}, len(prompts))
    first = [each.tokens for each in results[question.engines[0]]]
    return tuple(
        Plain(
            engine=name,
            seconds=spread(taken[name]),
            host_share=_mean([each.host_share for each in results[name]]),
            identical=[each.tokens for each in results[name]] == first,
        )
        for name in racers
    )


def _verifying(question: Question, pairs: dict[str, ModelPair], say: Say) -> tuple[Verifying, ...]:
    steps = {}
    for name, pair in pairs.items():
        say(f"verifying several tokens, {name}: warming up")
        steps[name] = Steps(pair, question.context, max(*question.counts, tree_tokens()))
    return tuple(measure_verifying(steps, max(5, 2 * question.rounds), question.counts))


def _synthetic(
    question: Question, models: ModelPair, prompts: Sequence[tuple[int, ...]], notes: list[str]
) -> Synthetic | None:
    if question.tokens < 2 * (question.draft_length + 1):
        notes.append("synthetic drafts were left out: too few tokens for two rounds")
        return None
    return measure_synthetic(
        question.engines[0],
        models,
        list(prompts),
        question.tokens,
        question.acceptance,
        question.draft_length,
    )


def _setting(question: Question) -> Setting:
    model = question.model(question.shape)
    shape, itemsize = question.shape, model.dtype.itemsize
    half_way = question.context + question.tokens / 2
    return Setting(
        shape=shape.name,
        draft_shape=question.draft.name,
        parameters=shape.parameters,
        dtype=str(model.dtype).removeprefix("torch."),
        device=device_name(question.device),
        device_type=question.device.type,
        context=question.context,
        tokens=question.tokens,
        rounds=question.rounds,
        seed=question.seed,
        bytes_per_token=itemsize * (shape.multiplied_parameters + shape.cache_values * half_way),
        provenance=provenance(question.device),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
