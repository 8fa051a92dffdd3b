"""Methods emit the same tokens over static models, replayed as graphs are, as over lean ones."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.clock import CpuClock
from specbench.decoding.request import Request, StopTokens
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from specbench.models.static import StaticDecoder
from specbench.rng import Streams
from specbench.schema.build import instantiate
from tests.unit.models import tiny_checkpoints
from tests.unit.models.recorded import Recorder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A target, and a draft that is often right."""
    path = tiny_checkpoints.write(tmp_path_factory.mktemp("static"), "llama3")
    models = []
    for noise in (0.0, 0.02):
        module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        torch.manual_seed(1)
        for parameter in module.parameters():
            parameter.data += noise * torch.randn_like(parameter)
        models.append(LeanDecoder.of(module, "llama3", torch.device("cpu"), torch.float64))
    return models


METHODS = (
    "ar",
    "token_sd",
    "block_sd",
    "pld",
    "static_tree",
    "dynamic_tree",
    "specinfer",
    "lookahead",
    "draft_verify",
)


def decode(models, method, law, prompt):
    decoder = instantiate(load_method(method)["decoder"])
    decoder.prepare(models)
    request = Request(
        prompt=prompt,
        max_new_tokens=30,
        law=law,
        streams=Streams(5, "request"),
        stop=StopTokens(frozenset()),
    )
    return decoder.generate(models, request, CpuClock())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("law", [Law(temperature=0.0), Law(temperature=1.0)], ids=["0", "1"])
def test_methods_emit_the_same_tokens_over_static_models(plain, method, law):
    recorders = [Recorder(), Recorder()]
    fast = [StaticDecoder(m, capture=r) for m, r in zip(plain, recorders, strict=True)]
    for model in fast:
        model.least_capacity = 256  # plain attention reads all of it
    expected = ModelPair("lean", plain[0], plain[1])
    models = ModelPair("static", fast[0], fast[1])
    for number in range(2):
        prompt = tuple((7 * i + i * i + number) % tiny_checkpoints.VOCAB for i in range(15))
        want = decode(expected, method, law, prompt)
        models.settle()
        got = decode(models, method, law, prompt)
        assert got.tokens == want.tokens
        assert [r.count for r in got.rounds] == [r.count for r in want.rounds]
    assert sum(recorders[0].replays) > 5, "most of the target's forwards were replays"
