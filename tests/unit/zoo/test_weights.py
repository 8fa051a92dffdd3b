"""The shipped pair loads as ordinary checkpoints and has the sizes that its page declares."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from specbench.paths import weights_dir
from specbench.training.text.evaluate import DRAFT_FOLDER, TARGET_FOLDER, converse, score
from specbench.zoo.held_out import held_out_samples
from specbench.zoo.worlds import WORLDS

_MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def pair():
    models = [
        AutoModelForCausalLM.from_pretrained(weights_dir() / name, dtype=torch.float32).eval()
        for name in (TARGET_FOLDER, DRAFT_FOLDER)
    ]
    return *models, AutoTokenizer.from_pretrained(weights_dir() / TARGET_FOLDER)


def test_everything_shipped_is_small() -> None:
    sizes = [path.stat().st_size for path in weights_dir().rglob("*") if path.is_file()]
    assert sum(sizes) <= 45 * _MEBIBYTE


@pytest.mark.parametrize(
    ("folder", "layers", "feed_forward"), [(TARGET_FOLDER, 12, 688), (DRAFT_FOLDER, 1, 1024)]
)
def test_declared_sizes(folder: str, layers: int, feed_forward: int) -> None:
    config = json.loads((weights_dir() / folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["num_hidden_layers"] == layers
    assert config["intermediate_size"] == feed_forward
    assert (config["hidden_size"], config["head_dim"]) == (256, 64)
    assert config["max_position_embeddings"] == 1024


def test_one_tokenizer() -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        target, draft = (weights_dir() / f / name for f in (TARGET_FOLDER, DRAFT_FOLDER))
        assert target.read_bytes() == draft.read_bytes()


def test_weights_are_finite_and_fit_the_vocabulary(pair) -> None:
    target, draft, tokenizer = pair
    for model in (target, draft):
        assert type(model) is LlamaForCausalLM
        assert model.config.vocab_size == len(tokenizer)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("task", ["tiny_math", "tiny_code"])
def test_target_is_good_and_draft_is_worse_on_held_out_prompts(pair, task: str) -> None:
    target, draft, tokenizer = pair
    samples = held_out_samples(task)[:12]
    result = score(target, draft, tokenizer, samples)
    assert result.quality is not None and result.quality >= 0.6
    assert result.acceptance is not None and 0.5 <= result.acceptance < 0.99
    assert result.entropy > 0.05
    alone = score(draft, None, tokenizer, samples)
    assert alone.quality is not None and alone.quality < result.quality - 0.1


@pytest.mark.slow
def test_acceptance_over_all_tasks_is_neither_low_nor_high(pair) -> None:
    target, draft, tokenizer = pair
    accepted = total = 0.0
    for task in WORLDS:
        result = score(target, draft, tokenizer, held_out_samples(task)[:4])
        assert result.acceptance is not None
        accepted += result.acceptance * result.answer_tokens
        total += result.answer_tokens
    assert 0.5 <= accepted / total <= 0.9


def test_chat_is_fluent_and_ends(pair) -> None:
    target, _, tokenizer = pair
    for conversation in converse(target, tokenizer, held_out_samples("tiny_chat")[:6]):
        assert all(answer[-1] == tokenizer.eos_token_id for answer in conversation.answers)
        assert all(re.search(r"[a-z]{3,}", text) for text in conversation.texts)
