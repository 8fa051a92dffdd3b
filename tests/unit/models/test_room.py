"""What a cache takes beside the weights, and that both are asked for before anything is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig

from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models import load as loading
from specbench.models.chameleon import Chameleon
from specbench.models.room import Room, cache_values
from specbench.runner.setup import load_models
from specbench.schema import catalog
from specbench.schema.model import ModelConfig
from tests.unit.models import llamagen_checkpoints, tiny_checkpoints
from tests.unit.models.chameleon_checkpoints import END, LAYOUT, ROW_END, TURN, write
from tests.unit.models.chameleon_checkpoints import entry as entry_of
from tests.unit.models.image_checks import load_entry
from tests.unit.runner import toy_image

LLAMA_SHAPED = {
    "lumina": dict(num_hidden_layers=32, num_attention_heads=32, hidden_size=4096),
    "emu3": dict(
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, hidden_size=4096
    ),
    "lumina2": dict(num_hidden_layers=32, num_attention_heads=32, hidden_size=4096),
}


def entry(name, **sampling):
    values = catalog.load("model", name)
    return ModelConfig.from_dict({**values, "sampling": {**values.get("sampling", {}), **sampling}})


def length(name):
    grid = catalog.load("model", name)["loader"]["grid"]
    ending = len(grid.get("ending", []))
    return grid["rows"] * (grid["columns"] + (grid.get("row_end") is not None)) + ending


@pytest.mark.parametrize(
    ("name", "gigabytes"), [("lumina", 4.29), ("emu3", 4.29), ("lumina2", 17.18)]
)
def test_two_rows_of_a_picture_take_what_was_measured(name, gigabytes):
    values = cache_values(AutoConfig.for_model("llama", **LLAMA_SHAPED[name]))
    room = Room.of(entry(name), length(name))
    assert room.bytes(values, torch.bfloat16) / 1e9 == pytest.approx(gigabytes, abs=0.01)
    alone = Room.of(entry(name, cfg_scale=1.0), length(name))
    assert alone.bytes(values, torch.bfloat16) * 2 == room.bytes(values, torch.bfloat16)


def test_anole_mixes_three_rows():
    assert Room.of(entry("anole"), length("anole")) == Room(3, 1024)
    assert Room.of(entry("anole", image_scale=None), length("anole")).rows == 2


def test_a_text_takes_the_context_that_is_asked_for():
    assert Room.of(entry("qwen3_8b")) == Room(1, 8192)
    shape = dict(num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128)
    values = cache_values(AutoConfig.for_model("qwen3", hidden_size=4096, **shape))
    assert Room.of(entry("qwen3_8b")).bytes(values, torch.bfloat16) == 8192 * 36 * 2 * 1024 * 2


def test_layers_that_keep_a_state_leave_nothing_in_the_cache():
    kinds = ["linear_attention", "full_attention"] * 2
    sizes = dict(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    mixed = AutoConfig.for_model("qwen3_next", layer_types=kinds, hidden_size=32, **sizes)
    assert cache_values(mixed) == 2 * 2 * 2 * 8


def test_layers_of_two_widths_count_with_their_own():
    """Gemma 4: wider heads, and fewer, in the layers of full attention."""
    kinds = ["sliding_attention", "full_attention"] * 2
    sizes = dict(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    wide = dict(global_head_dim=32, num_global_key_value_heads=1, attention_k_eq_v=True)
    mixed = AutoConfig.for_model("gemma4_text", layer_types=kinds, hidden_size=32, **sizes, **wide)
    assert cache_values(mixed) == 2 * 2 * (2 * 8 + 1 * 32)


@pytest.mark.parametrize("name", ["llama", "llama3", "qwen3", "gpt2"])
def test_values_are_those_of_the_cache_that_is_made(tmp_path, name):
    folder = tiny_checkpoints.write(tmp_path, name)
    config = ModelConfig.from_dict(
        {**catalog.load("model", "hf"), "target": str(folder), "device": "cpu"}
    )
    model = loading.load_pair(config).target
    cache = model.new_cache(1, 64)
    kept = sum(part.numel() for part in (*cache.keys, *cache.values))
    assert cache_values(AutoConfig.from_pretrained(folder)) * 64 == kept


HUGE = {"rows": 1000, "columns": 100, "row_end": ROW_END, "ending": [END, TURN]}


@pytest.mark.parametrize(("scale", "words"), [(3.0, "2 rows of 131,072"), (1.0, "131,072")])
def test_a_cache_that_does_not_fit_is_refused_before_weights_are_read(
    tmp_path, monkeypatch, scale, words
):
    """The rows are those of the run's guidance, whatever the entry says."""
    folder = write(tmp_path)
    monkeypatch.setattr(checkpoints, "free_memory", lambda device: 10**8)
    monkeypatch.setattr(Chameleon, "read_settings", lambda *_: pytest.fail("read too early"))
    loader = {"_target_": "specbench.models.chameleon.load", **LAYOUT, "grid": HUGE}
    run = toy_image.config(tmp_path)
    sampling = replace(run.sampling, cfg_scale=scale)
    model = entry_of(folder, loader=loader, sampling={"cfg_scale": 2.0})
    with pytest.raises(ModelError, match=f"GB for its cache of {words} tokens") as caught:
        load_models(replace(run, model=model, sampling=sampling), frozenset())
    assert caught.value.exit_code == 2


def test_the_cache_of_a_texts_context_counts_and_a_drafts_beside_it(tmp_path, monkeypatch):
    target, draft = (tiny_checkpoints.write(tmp_path, "llama", seed) for seed in range(2))
    keys = {"target": str(target), "draft": str(draft), "device": "cpu", "context": 1 << 20}
    config = ModelConfig.from_dict({**catalog.load("model", "hf"), **keys})
    needed = 2 * 3 * 2 * 32 * 4 * (1 << 20)
    monkeypatch.setattr(checkpoints, "free_memory", lambda device: needed - 1)
    with pytest.raises(ModelError, match=r"1\.6 GB for its cache of 1,048,576 tokens"):
        loading.find_all(config, frozenset({"draft"}))
    loading.find_all(config, frozenset())


def test_llamagens_cache_follows_from_its_file(tmp_path, monkeypatch):
    torch.save({"model": llamagen_checkpoints.transformer()}, tmp_path / "model.pt")
    monkeypatch.setattr(checkpoints, "free_memory", lambda device: 10**8)
    loader = {"weights": "model.pt", "heads": 2, "grid": {"rows": 400, "columns": 400}}
    with pytest.raises(ModelError, match="GB for its cache of 2 rows of 262,144 tokens"):
        load_entry("llamagen_c2i_b_256", target=str(tmp_path), loader=loader)
