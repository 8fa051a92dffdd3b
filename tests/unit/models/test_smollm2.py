"""The fetched model speaks as transformers' generate does of the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.models import engines
from specbench.models.base import View
from specbench.models.load import load_pair
from specbench.models.packaged import Packaged
from specbench.schema import catalog
from specbench.schema.model import ModelConfig

TOKENS = 12


@pytest.mark.slow
def test_greedy_tokens_are_those_of_generate(shared_data: Path) -> None:
    entry = catalog.load("model", "smollm2_135m")
    folder = Packaged.of(entry["target"], entry["target_revision"]).folder
    if not folder.is_dir():
        pytest.skip("smollm2_135m is not fetched")
    pair = load_pair(ModelConfig.from_dict(entry), needs=frozenset())
    engines.switch(pair, "auto")
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with (shared_data / "gsm8k_test.jsonl").open(encoding="utf-8") as lines:
        questions = [json.loads(next(lines))["question"] for _ in range(10)]
    for question in questions:
        said = [{"role": "user", "content": question}]
        text = pair.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        ids = pair.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        expected = module.generate(ids, max_new_tokens=TOKENS, do_sample=False)
        cache = pair.target.new_cache(1, ids.shape[1] + TOKENS)
        fed, found = ids, []
        while len(found) < TOKENS and not (found and found[-1] in pair.stop_ids):
            fed = pair.target.forward(fed, cache, View(last=1))[:, -1].argmax(-1, keepdim=True)
            found.append(int(fed))
        assert found == expected[0, ids.shape[1] :].tolist()
