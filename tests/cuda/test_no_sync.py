"""On a real device, rounds of decoding wait for nothing but their one read.

Needs CUDA. torch is told to refuse whatever synchronises; `specbench.transfer` waits on events,
which it does not refuse. What these tests see on a GPU, `tests/contract/test_transfers.py` sees of
every method on a played one.
"""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from specbench.clock import CudaClock
from specbench.decoding.request import Request
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from specbench.rng import Streams
from specbench.schema.build import instantiate
from specbench.transfer import Pending, read, to_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

METHODS = (
    *("ar", "token_sd", "block_sd", "pld", "static_tree"),
    *("dynamic_tree", "mcsd", "jacobi", "lookahead"),
)
LAWS = {
    "greedy": Law(temperature=0.0),
    "sampled": Law(temperature=0.8, top_p=0.95, repetition_penalty=1.1),
}


def decoder(layers: int, seed: int) -> LeanDecoder:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    device = torch.device("cuda")
    module = LlamaForCausalLM(config).float().eval().to(device)
    return LeanDecoder.of(module, f"random {layers}", device, torch.float32)


@pytest.fixture(scope="module")
def models() -> ModelPair:
    return ModelPair("random", decoder(2, 0), decoder(1, 1))


class Strict(CudaClock):
    """Lets torch refuse to synchronise from the end of the prefill on."""

    def mark(self) -> None:
        super().mark()
        torch.cuda.set_sync_debug_mode("error")

    def stop(self) -> None:
        torch.cuda.set_sync_debug_mode("default")
        super().stop()


def generate(method: str, models: ModelPair, law: Law, clock: CudaClock) -> tuple[int, ...]:
    one = instantiate(load_method(method)["decoder"])
    one.prepare(models)
    request = Request(tuple(range(1, 9)), 40, law, Streams(0, "cuda"))
    tokens: tuple[int, ...] = one.generate(models, request, clock).tokens
    return tokens


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS)
def test_no_round_synchronises_behind_its_read(models: ModelPair, method: str, law: str) -> None:
    device = models.target.device
    expected = generate(method, models, LAWS[law], CudaClock(device))  # makes tables and masks
    try:
        tokens = generate(method, models, LAWS[law], Strict(device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert tokens == expected


@pytest.mark.parametrize("method", METHODS)
def test_greedy_output_is_plain_decodings(models: ModelPair, method: str) -> None:
    clock = CudaClock(models.target.device)
    plain = generate("ar", models, LAWS["greedy"], clock)
    assert generate(method, models, LAWS["greedy"], clock) == plain


def test_the_guard_refuses_a_look(models: ModelPair) -> None:
    """Mutation: an ordinary look at a value."""
    token = torch.ones(1, device=models.target.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError):
            token.item()
        assert read(token) == [1.0]
        assert read(to_device([3], token.device)) == [3]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_staged_values_survive_until_they_are_copied(models: ModelPair) -> None:
    """Many uploads behind a busy device: no staging memory is used again too early."""
    device = models.target.device
    busy = torch.ones(2048, 2048, device=device)
    for _ in range(50):
        busy = busy @ busy / 2048
    sent = [to_device([number] * 100, device) for number in range(500)]
    pending = [Pending(tensor) for tensor in sent]
    assert [each.values() for each in pending] == [[number] * 100 for number in range(500)]
