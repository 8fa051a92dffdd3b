"""What a loaded model says of its size is what its checkpoint holds."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from specbench.hosting import HostRequest, compose_jobs
from specbench.models.load import load_pair
from specbench.models.pair import ModelPair
from specbench.models.shape import explaining
from specbench.models.table import TableModel
from specbench.runner.setup import load_models
from specbench.schema.shape import Shape
from tests.unit.models import tiny_checkpoints
from tests.unit.models.test_load import entry


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shape")


@pytest.mark.parametrize("engine", ["lean", "transformers"])
@pytest.mark.parametrize("name", ["llama", "llama3", "qwen2", "qwen3", "mistral"])
def test_both_engines_tell_the_checkpoint(folder, name, engine):
    path = tiny_checkpoints.write(folder, name)
    pair = load_pair(entry(path, engine=engine))
    sizes = pair.target.sizes
    stored = sum(t.numel() for t in load_file(path / "model.safetensors").values())
    config = tiny_checkpoints.configs()[name]
    assert sizes.shape is not None
    # norms of heads are a few numbers a layer, which the lean decoder does not count
    assert sizes.parameters == pytest.approx(stored, rel=0.005)
    assert sizes.weight_bytes == 4 * sizes.parameters
    assert sizes.shape.record() == Shape.from_config(config.to_dict(), "x").record()
    cache = pair.target_cache(8)
    held = sum(t.numel() for t in (*cache.keys, *cache.values)) * 4 / cache.capacity
    assert sizes.cache_bytes_per_token == held


def test_a_configuration_that_does_not_account_for_the_weights_tells_no_shape(folder):
    pair = load_pair(entry(tiny_checkpoints.write(folder, "gpt2")))
    sizes = pair.target.sizes
    assert sizes.shape is None and sizes.record()["shape"] is None
    assert sizes.parameters > 0 and sizes.cache_bytes_per_token > 0
    values = tiny_checkpoints.configs()["llama"].to_dict()
    right = Shape.from_config(values, "x").parameters
    assert explaining(values, "x", right) is not None
    assert explaining(values, "x", round(1.5 * right)) is None
    assert explaining({**values, "num_experts": 4}, "x", right) is None


def test_a_guided_model_is_as_large_as_its_body():
    ((_, config),) = compose_jobs(HostRequest(("model=tiny_image", "method=ar")))
    pair = load_models(config, frozenset({"draft"}))
    found = pair.described()
    assert found["target"]["shape"]["layers"] == pair.target.layers
    assert found["target"]["digest"] == pair.provenance["target"]["digest"]
    assert found["draft"]["parameters"] < found["target"]["parameters"]
    assert "parameters" not in pair.provenance["target"]


def test_a_table_has_no_size():
    table = TableModel(lambda context: torch.zeros(4), 4)
    assert table.sizes is None
    assert ModelPair("t", table).described() == {}
    pair = ModelPair("t", table, provenance={"target": {"digest": "d"}})
    assert pair.described() == {"target": {"digest": "d"}}
