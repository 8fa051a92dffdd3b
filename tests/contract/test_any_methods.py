"""Methods of any modality draw on the toy grid as plain decoding does, forced tokens included."""

from __future__ import annotations

from functools import cache

import pytest

from specbench.clock import CpuClock
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request, StopTokens
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.image import CODE
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.build import instantiate
from tests.unit.decoding.jacobi.toy import FIRST_CODE, PROMPT, image_pair

GREEDY = Law(temperature=0.0)
SAMPLED = Law(temperature=1.0, top_k=3)


def any_methods() -> list[str]:
    names = catalog.names("method")
    return [name for name in names if catalog.load("method", name).get("modality") == "any"]


@cache
def drawing(method: str, law: Law, seed: int) -> tuple[Generation, tuple[int, ...]]:
    """Return what a method draws and the tokens that the grid forces (-1 where it does not)."""
    models = image_pair(seed=seed)
    assert models.image is not None
    decoder = instantiate(load_method(method)["decoder"])
    decoder.prepare(models)
    request = Request(
        prompt=PROMPT,
        max_new_tokens=models.image.grid.length,
        law=law,
        streams=Streams(seed, f"picture/{seed}"),
        stop=StopTokens(models.stop_ids),
    )
    return decoder.generate(models, request, CpuClock()), models.image.grid.forced


@pytest.mark.parametrize("method", any_methods())
@pytest.mark.parametrize("law", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_every_picture_obeys_the_grid(method: str, law: Law) -> None:
    for seed in range(3):
        generation, forced = drawing(method, law, seed)
        assert len(generation.tokens) == len(forced)
        for token, wanted in zip(generation.tokens, forced, strict=True):
            assert token >= FIRST_CODE if wanted == CODE else token == wanted
        assert sum(round_.count.emitted for round_ in generation.rounds) == len(forced)


@pytest.mark.parametrize("method", any_methods())
def test_a_lossless_method_draws_plain_decodings_greedy_picture(method: str) -> None:
    if catalog.load("method", method)["exactness"] == "lossy":
        pytest.skip("a lossy method makes no such promise")
    for seed in range(4):
        assert drawing(method, GREEDY, seed)[0].tokens == drawing("ar", GREEDY, seed)[0].tokens
