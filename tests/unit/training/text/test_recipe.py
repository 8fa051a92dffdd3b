"""The training loop learns, repeats with its seed, and writes what it trained."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from specbench.training.loop import Optimizers, rate
from specbench.training.text import recipe
from specbench.training.text.data import Batch, batches
from specbench.zoo.held_out import training_samples


def _model(tokenizer, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return recipe.build_model(layers=1, feed_forward=64, tokenizer=tokenizer)


def _stream(tokenizer):
    return batches(tokenizer, training_samples(1, frozenset()), 1, 256)


def test_rate_warms_up_and_decays_to_zero() -> None:
    rates = [rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == 1.0 and rates[200] == 1.0
    assert rates[-1] < 0.01
    decay = rates[400:]
    assert decay == sorted(decay, reverse=True)


def test_every_parameter_has_one_optimizer(tokenizer) -> None:
    model = _model(tokenizer)
    parts = [Optimizers.of(model, rank, 2) for rank in range(2)]
    matrices = [p for part in parts for p in part.matrices.param_groups[0]["params"]]
    others = parts[0].others.param_groups[0]["params"]
    assert sorted(map(id, [*matrices, *others])) == sorted(map(id, model.parameters()))
    assert all(parameter.ndim == 2 for parameter in matrices)
    for parameter, owner in parts[0].owners:
        assert any(parameter is own for own in parts[owner].matrices.param_groups[0]["params"])


def _one_batch(tokenizer) -> Batch:
    return next(_stream(tokenizer))


def test_loss_counts_only_weighted_tokens(tokenizer) -> None:
    model, batch = _model(tokenizer), _one_batch(tokenizer)
    silent = Batch(batch.tokens, torch.zeros_like(batch.weights))
    assert recipe._next_token_loss(model, silent, None).item() == 0.0
    whole = recipe._next_token_loss(model, batch, None).item()
    half = recipe._next_token_loss(model, Batch(batch.tokens, batch.weights / 2), None).item()
    assert half == pytest.approx(whole / 2, rel=1e-5)


def test_distillation_is_least_at_the_teacher(tokenizer) -> None:
    teacher, other, batch = _model(tokenizer, 1), _model(tokenizer, 2), _one_batch(tokenizer)
    own = recipe._next_token_loss(teacher, batch, teacher).item()
    assert own < recipe._next_token_loss(other, batch, teacher).item()


@pytest.fixture
def quick(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(recipe, "_check", lambda *_: "")
    monkeypatch.setattr(recipe, "_LOG_EVERY", 1)
    meeting = tmp_path_factory.mktemp("meeting") / "processes"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _fit(tokenizer, folder) -> LlamaForCausalLM:
    model = _model(tokenizer)
    recipe.fit(model, None, _stream(tokenizer), 4, tokenizer, folder)
    return model


def test_fit_learns_and_repeats(tokenizer, tmp_path, quick, capsys) -> None:
    batch = list(itertools.islice(_stream(tokenizer), 2))[0]
    before = recipe._next_token_loss(_model(tokenizer), batch, None).item()
    first, second = _fit(tokenizer, tmp_path / "a"), _fit(tokenizer, tmp_path / "b")
    assert recipe._next_token_loss(first, batch, None).item() < before
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "step 4/4" in capsys.readouterr().out


def test_saved_checkpoint_is_the_trained_model(tokenizer, tmp_path, quick) -> None:
    trained = _fit(tokenizer, tmp_path).eval()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(loaded) is LlamaForCausalLM
    tokens = _one_batch(tokenizer).tokens
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=tokens).logits, trained(input_ids=tokens).logits, atol=2e-2, rtol=0
        )
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
