"""Random models are sane, repeat themselves, and are the same model in both libraries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from specbench.errors import ModelError
from specbench.models.decoder import LeanDecoder
from specbench.models.random_weights import (
    RandomModel,
    has_head_norm,
    random_module,
    random_weights,
)
from specbench.schema import catalog
from specbench.schema.shape import Shape

CPU = torch.device("cpu")
SMALL = Shape("small", "small", 96, 3, 6, 2, 16, 160, 211, tied=False)
TOKENS = torch.arange(40)[None] * 5 % 211


def model(shape: Shape = SMALL, dtype: torch.dtype = torch.float32, seed: int = 0) -> RandomModel:
    return RandomModel(shape, 64, CPU, dtype, seed)


def logits(wanted: RandomModel) -> torch.Tensor:
    decoder = LeanDecoder(random_weights(wanted), wanted.shape.name)
    return decoder.forward(TOKENS, decoder.new_cache(1, 64))


@pytest.mark.parametrize("tied", [False, True])
def test_both_libraries_compute_one_model(tied: bool) -> None:
    wanted = model(replace(SMALL, tied=tied), torch.float64)
    module = random_module(wanted)
    with torch.inference_mode():
        theirs = module(TOKENS).logits
    torch.testing.assert_close(logits(wanted), theirs, rtol=0, atol=1e-5)  # float32 rotary inside
    shared = module.lm_head.weight.data_ptr() == module.model.embed_tokens.weight.data_ptr()
    assert shared == tied


def test_another_seed_is_another_model() -> None:
    first, second = logits(model()), logits(model(seed=1))
    torch.testing.assert_close(first, logits(model()), rtol=0, atol=0)
    assert (first - second).abs().mean() > 0.5


@pytest.mark.parametrize("layers", [1, 12])
@pytest.mark.parametrize("name", ["small", "chameleon_small", "qwen3_small"])
def test_logits_have_a_deviation_of_about_one(layers: int, name: str) -> None:
    found = logits(model(replace(SMALL, name=name, layers=layers)))
    assert 0.7 < float(found.std()) < 1.4
    assert len(set(found[0].argmax(-1).tolist())) > 15  # no token wins everywhere


def test_a_deep_bfloat16_model_stays_finite() -> None:
    found = logits(model(replace(SMALL, layers=24), torch.bfloat16))
    assert found.isfinite().all()
    assert 0.7 < float(found.float().std()) < 1.4


def test_large_matrices_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbench.models.random_weights._BATCH_OF_ROWS", 100)
    weight = model().matrix("any", 50, 30)
    assert abs(float(weight.std()) * 30**0.5 - 1) < 0.1
    assert not torch.equal(weight[:3], weight[3:6])


def test_the_real_shapes_have_the_norms_of_their_families() -> None:
    shapes = {name: Shape.from_dict(catalog.load("shape", name)) for name in catalog.names("shape")}
    normed = {name for name, shape in shapes.items() if has_head_norm(shape)}
    assert normed == {"chameleon_7b"} | {name for name in shapes if name.startswith("qwen3")}


def test_sizes_agree_with_the_shape() -> None:
    decoder = LeanDecoder(random_weights(model()), "small")
    norms = 96 * (2 * 3 + 1)
    assert decoder.sizes.parameters == SMALL.parameters + norms
    assert model(dtype=torch.bfloat16).weight_bytes == 2 * SMALL.parameters
    found = decoder.sizes.shape
    assert found is not None and found.record() == SMALL.record()


def test_a_head_norm_is_refused_where_the_module_has_none() -> None:
    with pytest.raises(ModelError, match="no Llama"):
        random_module(model(replace(SMALL, name="chameleon_7b")))


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(ModelError, match="heads of 15"):
        random_weights(model(replace(SMALL, head_size=15)))
