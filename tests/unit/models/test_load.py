"""Checkpoints in the published format load; everything else is refused in words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from specbench.errors import ModelError
from specbench.models import checkpoint
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.load import load_pair
from specbench.schema.config import ModelConfig
from tests.unit.models import published_checkpoints as published
from tests.unit.models import tiny_checkpoints


def entry(target, draft=None, **changes):
    base = ModelConfig(
        name="hf", title="t", target=str(target), loader={}, device="cpu", dtype="float32"
    )
    return replace(base, draft=None if draft is None else str(draft), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("load")


@pytest.mark.parametrize("name", sorted(tiny_checkpoints.configs()))
def test_every_architecture_loads_and_decodes(folder, name):
    pair = load_pair(entry(tiny_checkpoints.write(folder, name)))
    expected = CausalLM if name == "gpt2" else LeanDecoder
    assert isinstance(pair.target, expected)
    logits = pair.target.forward(torch.tensor([[1, 2, 3]]), pair.target_cache(8))
    assert logits.shape == (1, 3, tiny_checkpoints.VOCAB) and pair.stop_ids == {1}
    assert pair.provenance["target"]["digest"].startswith("sha256:")
    assert pair.provenance["target"]["engine"] == pair.target.engine


def test_a_draft_of_the_same_vocabulary_is_accepted_and_padding_is_cut(folder):
    target = tiny_checkpoints.write(folder, "llama")
    draft = tiny_checkpoints.write(folder, "qwen3", seed=1)
    padded = folder / "padded"
    padded.mkdir()
    for file in draft.iterdir():
        (padded / file.name).write_bytes(file.read_bytes())
    tensors = load_file(draft / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            tensors[name] = torch.cat([tensors[name], torch.randn(7, 32)])
    save_file(tensors, padded / "model.safetensors", {"format": "pt"})
    config = json.loads((draft / "config.json").read_text())
    config["vocab_size"] += 7
    (padded / "config.json").write_text(json.dumps(config))
    pair = load_pair(entry(target, padded))
    assert pair.draft is not None
    assert pair.target.vocab_size == pair.draft.vocab_size == tiny_checkpoints.VOCAB


def test_padding_and_added_tokens_of_the_target_stay_in_its_law(folder):
    """The draft lacks the last ids: its law is 0 there, and the target's is transformers'."""
    draft = published.write(folder / "narrow")
    weights = published.tensors(published.IDS + 5, seed=1)
    target = published.write(folder / "wide", weights, vocab_size=published.IDS + 5)
    published.write_tokenizer(target, published.IDS + 3)  # of which 2 are padding
    pair = load_pair(entry(target, draft))
    assert pair.draft is not None
    tokens = torch.tensor([[3, published.IDS + 2, 4]])
    logits = pair.target.forward(tokens, pair.target_cache(8))
    module = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    torch.testing.assert_close(logits, module(tokens).logits, atol=1e-4, rtol=1e-4)
    drafted = pair.draft.forward(tokens, pair.draft_cache(8))
    assert drafted.shape == logits.shape
    assert drafted[..., published.IDS :].isneginf().all()
    assert drafted[..., : published.IDS].isfinite().all()


def test_a_draft_of_another_vocabulary_is_refused(folder):
    target = tiny_checkpoints.write(folder, "llama")
    draft = tiny_checkpoints.write(folder, "llama", seed=2)
    tokenizer = draft / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"w7"', '"other"'))
    tokens = json.loads(tokenizer.read_text())
    vocab = tokens["model"]["vocab"]
    vocab["w8"], vocab["w9"] = vocab["w9"], vocab["w8"]
    tokenizer.write_text(json.dumps(tokens))
    with pytest.raises(ModelError, match="cannot draft for"):
        load_pair(entry(target, draft))


def test_the_draft_is_left_out_where_no_method_needs_it(folder):
    path = tiny_checkpoints.write(folder, "llama")
    assert load_pair(entry(path, path), needs=frozenset()).draft is None


def test_the_engine_can_be_chosen(folder):
    path = tiny_checkpoints.write(folder, "llama")
    assert load_pair(entry(path, engine="transformers")).target.engine == "transformers"
    with pytest.raises(ModelError, match="lean engine cannot run"):
        load_pair(entry(tiny_checkpoints.write(folder, "gpt2"), engine="lean"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "not a checkpoint folder"),
        (["config.json"], "no weights that can be loaded"),
        (["config.json", "pytorch_model.bin"], "no weights that can be loaded"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path, files, message):
    for file in files:
        (tmp_path / file).write_text("{}")
    with pytest.raises(ModelError, match=message) as caught:
        load_pair(entry(tmp_path))
    if "pytorch_model.bin" in files:
        assert "pickled" in caught.value.why


def test_damaged_weights_are_refused(folder, tmp_path):
    path = tiny_checkpoints.write(folder, "llama")
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_pair(entry(tmp_path))


def test_without_a_network_a_hub_model_is_refused_at_once():
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        load_pair(entry("someone/some-model"))
    assert "tiny_text" in caught.value.fix


def test_a_misspelt_embedded_model_or_path_is_refused():
    with pytest.raises(ModelError, match="no embedded model 'tiny'"):
        checkpoint.find("embedded:tiny", None)
    with pytest.raises(ModelError, match="no checkpoint folder"):
        checkpoint.find("./nowhere", None)


def test_too_large_a_model_is_refused_before_it_is_loaded():
    with pytest.raises(ModelError, match="needs about 90000.0 GB"):
        checkpoint.check_memory(90000.0, torch.device("cpu"), "huge")


def test_a_missing_device_is_refused(folder):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ModelError, match="no device 'cuda'"):
        load_pair(entry(tiny_checkpoints.write(folder, "llama"), device="cuda"))


def test_a_need_that_the_engine_lacks_is_refused_by_name_before_weights_are_read(
    tmp_path, monkeypatch
):
    path = tiny_checkpoints.write(tmp_path, "gpt2")
    for weights in path.glob("*.safetensors"):
        weights.write_bytes(b"not weights")
    monkeypatch.setattr(CausalLM, "able", classmethod(lambda cls, config: frozenset()))
    with pytest.raises(ModelError) as caught:
        load_pair(entry(path), needs=frozenset({"layer_skip", "tree_mask"}))
    assert "layer_skip, tree_mask" in caught.value.what
    assert "gpt2" in caught.value.why and "transformers" in caught.value.why


def test_every_need_is_met_by_the_lean_engine(folder):
    path = tiny_checkpoints.write(folder, "llama")
    needs = frozenset({"layer_skip", "tree_mask", "hidden_states"})
    assert load_pair(entry(path), needs=needs).draft is None
