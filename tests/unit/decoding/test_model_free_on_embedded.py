"""Model-free methods on the embedded pair, in float64: the tokens of plain decoding."""

from __future__ import annotations

import pytest

from specbench.clock import CpuClock
from specbench.decoding.request import Request, StopTokens
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.load import load_pair
from specbench.rng import Streams
from specbench.schema import catalog
from specbench.schema.build import instantiate
from specbench.schema.model import ModelConfig
from specbench.schema.task import TaskConfig
from specbench.tasks.load import load_task
from specbench.tasks.prompting import for_tokenizer, format_prompt

METHODS = ("token_recycling", "aded", "iad", "lookahead", "jacobi")


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_are_plain_decodings(temperature):
    values = catalog.load("model", "tiny_text") | {"dtype": "float64"}
    models = load_pair(ModelConfig.from_dict(values))
    decoders = {name: instantiate(load_method(name)["decoder"]) for name in ("ar", *METHODS)}
    for name in ("tiny_rewrite", "tiny_code"):
        settings = catalog.load("task", name) | {"limit": 1}
        task = for_tokenizer(load_task(TaskConfig.from_dict(settings)), models.tokenizer)
        for sample in task.samples:
            prompt = tuple(format_prompt(task, sample, [], 0, models.tokenizer))
            stop = StopTokens(models.stop_ids)
            streams = Streams(0, sample.id)
            request = Request(prompt, 48, Law(temperature=temperature), streams, stop)
            tokens = {
                method: decoder.generate(models, request, CpuClock()).tokens
                for method, decoder in decoders.items()
            }
            assert set(tokens.values()) == {tokens["ar"]}, name
