"""Every text method of `conf/method/` runs on toy models and keeps what its YAML promises."""

from __future__ import annotations

from functools import cache

import pytest

from specbench.audit.heads import with_head
from specbench.clock import CpuClock
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request, StopTokens
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, drift_table, markov_table
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.build import instantiate

VOCABULARY = 5
STOP = 4
NEW_TOKENS = 40
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]
LAWS = {
    "greedy": Law(temperature=0.0),
    "greedy with penalty": Law(temperature=0.0, repetition_penalty=1.3),
    "sampled": Law(temperature=0.9, top_k=4, top_p=0.95),
}


def text_methods() -> list[str]:
    return [
        name
        for name in catalog.names("method")
        if catalog.load("method", name).get("modality", "text") in ("text", "any")
    ]


def toy_pair(seed: int, method: str = "ar") -> ModelPair:
    table = markov_table(order=2, vocab_size=VOCABULARY, seed=seed, sharpness=2.0)
    noise = markov_table(order=1, vocab_size=VOCABULARY, seed=seed + 100, sharpness=2.0)
    models = ModelPair(
        name="toy",
        target=TableModel(table, VOCABULARY),
        draft=TableModel(drift_table(table, noise, 0.3), VOCABULARY),
    )
    return with_head(models, load_method(method).get("heads") or ())


@cache
def generate(method: str, law: str, seed: int) -> Generation:
    decoder = instantiate(load_method(method)["decoder"])
    request = Request(
        prompt=(0, 1, 2, 0, 1, 2, 0),
        max_new_tokens=NEW_TOKENS,
        law=LAWS[law],
        streams=Streams(seed, f"toy/{seed}"),
        stop=StopTokens(frozenset({STOP} if seed % 2 else ())),
    )
    generation: Generation = decoder.generate(toy_pair(seed, method), request, CpuClock())
    return generation


@pytest.mark.parametrize("method", text_methods())
def test_the_file_names_what_the_parts_need(method: str) -> None:
    decoder = instantiate(load_method(method)["decoder"])
    assert set(load_method(method)["needs"]) == set(decoder.needs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("law", ["greedy", "greedy with penalty"])
@pytest.mark.parametrize("method", text_methods())
def test_a_lossless_method_repeats_plain_greedy_decoding(method: str, law: str, seed: int) -> None:
    if catalog.load("method", method)["exactness"] == "lossy":
        pytest.skip("a lossy method makes no such promise")
    assert generate(method, law, seed).tokens == generate("ar", law, seed).tokens


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", text_methods())
def test_the_ledger_counts_every_emitted_token(method: str, law: str, seed: int) -> None:
    generation = generate(method, law, seed)
    assert sum(round_.count.emitted for round_ in generation.rounds) == len(generation.tokens)
    assert 1 <= len(generation.tokens) <= NEW_TOKENS
    assert STOP not in generation.tokens[:-1] or seed % 2 == 0
    first = generation.rounds[0].count
    assert (first.proposed, first.accepted, first.emitted) == (0, 0, 1)


@pytest.mark.parametrize("method", text_methods())
def test_the_same_seed_gives_the_same_tokens(method: str) -> None:
    once, again = generate(method, "sampled", 2), generate.__wrapped__(method, "sampled", 2)
    assert once.tokens == again.tokens
    assert once.tokens != generate(method, "sampled", 4).tokens
