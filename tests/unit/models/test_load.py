"""Checkpoints in the published format load; everything else is refused in words."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tracemalloc
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, dynamic_module_utils

from specbench.errors import ModelError
from specbench.models import checkpoint, load
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.load import load_pair
from specbench.schema.config import ModelConfig
from specbench.schema.model import label_of
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


def test_a_loaded_model_holds_no_view_of_its_file(folder):
    weights = load_pair(entry(tiny_checkpoints.write(folder, "llama"))).target.weights
    kept = [weights.embedding, weights.final_norm]
    kept += [norm for x in weights.layers for norm in (x.attention_norm, x.feed_forward_norm)]
    for tensor in kept:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_hashing_weights_takes_no_memory_of_their_size(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(1 << 25)
    place = checkpoint.Checkpoint("a", str(tmp_path), None, local=True)
    tracemalloc.start()
    try:
        assert checkpoint.digest(place) == (
            f"sha256:{hashlib.sha256(bytes(1 << 25)).hexdigest()[:32]}"
        )
        tracemalloc.reset_peak()
        checkpoint.digest(place)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


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


def without(name):
    return {key: value for key, value in published.tensors().items() if key != name}


DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (without("lm_head.weight"), "missing: lm_head.weight"),
        (without(DOWN), f"missing: {DOWN}"),
        (
            {f"base_model.{name}": value for name, value in published.tensors().items()},
            "stand behind 'base_model.'",
        ),
    ],
    ids=["head", "layer", "prefix"],
)
def test_missing_weights_are_refused_and_not_made_up(tmp_path, weights, told):
    with pytest.raises(ModelError, match=r"lacks (a weight|[23][0-9] weights) of") as caught:
        load_pair(entry(published.write(tmp_path, weights)))
    assert told in caught.value.why


def test_weights_of_another_shape_are_refused_by_name(tmp_path):
    weights = {**published.tensors(), DOWN: torch.zeros(published.WIDTH, published.INNER + 1)}
    with pytest.raises(ModelError, match="does not fit its own") as caught:
        load_pair(entry(published.write(tmp_path, weights)))
    assert DOWN in caught.value.why and "[16, 25]" in caught.value.why


def test_a_tied_head_may_be_missing_and_weights_without_a_place_are_told(tmp_path):
    weights = without("lm_head.weight") | {"model.layers.9.odd.weight": torch.zeros(3)}
    pair = load_pair(entry(published.write(tmp_path, weights, tie_word_embeddings=True)))
    (note,) = pair.about.notes
    assert "a weight that the model does not use: model.layers.9.odd.weight" in note


def shards(folder, index):
    """Write the checkpoint in two files, with an index of them or without."""
    published.write(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(published.tensors())
    for number, part in ((1, names[:9]), (2, names[9:])):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: published.tensors()[name] for name in part}, folder / file)
    if index:
        files = {
            name: f"model-0000{1 + (place >= 9)}-of-00002.safetensors"
            for place, name in enumerate(names)
        }
        about = {"metadata": {}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(about))
    return folder


def test_shards_are_read_by_their_index_and_refused_without(tmp_path):
    whole = shards(tmp_path / "whole", index=True)
    assert load_pair(entry(whole)).target.vocab_size == published.IDS
    with pytest.raises(ModelError) as caught:
        load_pair(entry(shards(tmp_path / "bare", index=False)))
    assert "model.safetensors.index.json" in caught.value.fix
    (whole / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks 1 of its weight files") as caught:
        load_pair(entry(whole))
    assert "names model-00002-of-00002.safetensors" in caught.value.why


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_broken_file_is_named(tmp_path, name):
    path = published.write(tmp_path)
    (path / name).write_text('{"a": ')
    with pytest.raises(ModelError) as caught:
        load_pair(entry(path))
    assert name in caught.value.what and "JSON" in caught.value.why


def test_a_broken_value_and_a_broken_template_are_one_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_pair(entry(published.write(tmp_path / "value", hidden_size="wide")))
    path = published.write(tmp_path / "template")
    (path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}")
    with pytest.raises(ModelError, match="chat template") as caught:
        load_pair(entry(path))
    assert "line 1" in caught.value.why
    assert load_pair(entry(path, chat=False)).tokenizer.chat_template is None


def test_an_adapter_is_told_from_a_model(tmp_path):
    about = {"peft_type": "LORA", "base_model_name_or_path": "some/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="is a LoRA adapter") as caught:
        load_pair(entry(tmp_path))
    assert "some/base" in caught.value.why and "merge_and_unload" in caught.value.fix


@pytest.mark.parametrize("kind", ["fp8", "gptq", "awq"])
def test_quantised_weights_are_refused_by_name(tmp_path, kind):
    path = published.write(tmp_path, quantization_config={"quant_method": kind, "bits": 4})
    with pytest.raises(ModelError, match=rf"quantised \({kind}\)") as caught:
        load_pair(entry(path))
    assert "in 16 bits" in caught.value.fix
    if kind == "fp8":  # the library has no need of another package, and leaves these as they are
        assert load_pair(entry(path, engine="transformers")).target.engine == "transformers"
        return
    with pytest.raises(ModelError):
        load_pair(entry(path, engine="transformers"))  # in words, where packages lack


PLANTED = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig as MyConfig, LlamaForCausalLM as MyModel
from transformers import PreTrainedTokenizerFast as MyTokenizer
"""


def planted(folder, marker, **config):
    """Write a checkpoint that brings Python files of its own."""
    names = {"AutoConfig": "modeling_my.MyConfig", "AutoModelForCausalLM": "modeling_my.MyModel"}
    published.write(folder, auto_map=names, **config)
    (folder / "modeling_my.py").write_text(PLANTED.format(marker=str(marker)))
    return folder


def test_a_checkpoint_s_own_code_never_runs_whatever_stands_on_standard_input(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    marker = tmp_path / "it ran"
    with pytest.raises(ModelError, match="code of its own, which is never run"):
        load_pair(entry(planted(tmp_path / "unknown", marker, model_type="my_llama")))
    known = planted(tmp_path / "known", marker)
    assert load_pair(entry(known)).target.engine == "lean", "transformers has its class"
    tokenizer = planted(tmp_path / "tokenizer", marker)
    settings = {
        "tokenizer_class": "MyTokenizer",
        "auto_map": {"AutoTokenizer": [None, "modeling_my.MyTokenizer"]},
    }
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    with contextlib.suppress(ModelError):
        load_pair(entry(tokenizer))
    assert not marker.exists()


END = published.END


@pytest.mark.parametrize(
    ("config", "generation", "end", "expected"),
    [
        (7, None, None, {7}),
        ([4, 7], None, None, {4, 7}),
        ([4, 7], None, "</s>", {4, 7, END}),
        (3, {"eos_token_id": [4, 7]}, None, {4, 7}),
        (3, {"do_sample": False}, None, {3}),
        (None, None, None, set()),
    ],
)
def test_the_end_of_text_is_found_wherever_it_stands(tmp_path, config, generation, end, expected):
    path = published.write(tmp_path, generation=generation, end=end, eos_token_id=config)
    assert load_pair(entry(path)).stop_ids == expected


def test_auto_dtype_goes_by_parameters_and_not_by_bytes(tmp_path, monkeypatch):
    count = sum(value.numel() for value in published.tensors().values())
    path = published.write(tmp_path)
    for limit, dtype in ((count + 1, torch.float32), (count, torch.bfloat16)):
        monkeypatch.setattr(load, "SMALL", limit)
        pair = load_pair(entry(path, dtype="auto"))
        assert pair.target.dtype == dtype
        assert pair.about.dtype_reason.startswith("auto: ")
    assert load_pair(entry(path, dtype="float32")).about.dtype_reason == ""


def test_a_model_of_135_million_parameters_runs_in_float32_on_a_cpu():
    assert 135_000_000 < load.SMALL < 1_000_000_000


def test_any_checkpoint_is_called_by_its_folder_s_or_hub_s_name(tmp_path):
    path = published.write(tmp_path / "my-model")
    assert load_pair(entry(path)).name == "my-model"
    assert load_pair(entry(path, name="own_entry")).name == "own_entry"
    assert label_of("hf", "ORG/NAME-135M") == "NAME-135M"
    assert label_of("hf", "..") == "hf"


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
    with pytest.raises(ModelError, match="model.safetensors' cannot be read") as caught:
        load_pair(entry(tmp_path))
    assert "it ends after" in caught.value.why


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
    assert "leave some of its layers out or judge a tree of drafts" in caught.value.what
    assert "gpt2" in caught.value.why and "transformers" in caught.value.why


def test_every_need_is_met_by_the_lean_engine(folder):
    path = tiny_checkpoints.write(folder, "llama")
    needs = frozenset({"layer_skip", "tree_mask", "hidden_states"})
    assert load_pair(entry(path), needs=needs).draft is None


def with_mask(folder, draft, **keys):
    """Write a draft's copy whose config.json has further keys."""
    copy = folder / "parallel"
    copy.mkdir()
    for file in draft.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((draft / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **keys}))
    return copy


PARALLEL = frozenset({"draft", "parallel_draft"})


@pytest.mark.parametrize("key", ["pard_token", "ptd_token_id"])
def test_a_parallel_draft_is_the_entrys_draft_where_that_is_one(tmp_path, key):
    plain = tiny_checkpoints.write(tmp_path, "llama")
    drafts = with_mask(tmp_path, plain, **{key: 7})
    assert load_pair(entry(plain, plain)).draft.mask_token is None
    for given in (entry(plain, drafts), entry(plain, plain, parallel_draft=str(drafts))):
        pair = load_pair(given, needs=PARALLEL)
        assert pair.draft.mask_token == 7 and pair.provenance["draft"]["source"] == str(drafts)
    assert load_pair(entry(plain, plain, parallel_draft=str(drafts))).draft.mask_token is None


@pytest.mark.parametrize("token", [-1, tiny_checkpoints.VOCAB, "7"])
def test_a_mask_token_that_is_none_is_refused(tmp_path, token):
    plain = tiny_checkpoints.write(tmp_path, "llama")
    with pytest.raises(ModelError, match="cannot draft in parallel") as caught:
        load_pair(entry(plain, with_mask(tmp_path, plain, pard_token=token)), needs=PARALLEL)
    assert f"{token!r} of {tiny_checkpoints.VOCAB} tokens" in caught.value.why


def test_a_draft_without_a_mask_token_is_refused_before_weights_are_read(tmp_path):
    plain = tiny_checkpoints.write(tmp_path, "llama")
    for weights in plain.glob("*.safetensors"):
        weights.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="says several tokens in one forward") as caught:
        load_pair(entry(plain, plain), needs=PARALLEL)
    assert "pard_token" in caught.value.why and "amd/PARD" in caught.value.fix
