"""Shipped heads load behind the embedded target, say how they were trained, and draft well."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from specbench.clock import CpuClock
from specbench.decoding.request import Request, StopTokens
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.heads.load import find_head, load_head
from specbench.models.load import load_pair
from specbench.paths import weights_dir
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.build import instantiate
from specbench.schema.model import ModelConfig
from specbench.zoo.held_out import held_out_samples

HEADS = catalog.load("model", "tiny_text")["heads"]


@pytest.fixture(scope="module")
def models():
    return load_pair(ModelConfig.from_dict(catalog.load("model", "tiny_text")), needs=frozenset())


@pytest.mark.parametrize("family", HEADS)
def test_digests_are_those_of_the_files(family: str) -> None:
    folder = weights_dir() / HEADS[family].removeprefix("embedded:")
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    names = {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    assert listed == found
    assert json.loads((folder / "training.json").read_text())["recipe"] == family


@pytest.mark.parametrize("family", HEADS)
def test_a_shipped_head_drafts_what_the_target_says(models, family: str) -> None:
    """At temperature 0: plain decoding's tokens, in clearly fewer rounds."""
    entry = {**catalog.load("model", "tiny_text"), "head": HEADS[family]}
    head = load_head(find_head(ModelConfig.from_dict(entry)), models.target)
    models = replace(models, head=head, _caches={})
    method = load_method(family)
    plain, decoder = (instantiate(each["decoder"]) for each in (load_method("ar"), method))
    tokens = rounds = 0
    for sample in held_out_samples("tiny_math")[:4]:
        messages = [{"role": "user", "content": sample.turns[0]}]
        prompt = models.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        stop = StopTokens(models.stop_ids)
        request = Request(tuple(prompt), 96, Law(temperature=0), Streams(0), stop)
        generation = decoder.generate(models, request, CpuClock())
        assert generation.tokens == plain.generate(models, request, CpuClock()).tokens
        tokens += len(generation.tokens)
        rounds += len(generation.rounds)
    assert tokens / rounds > 1.5
