"""Steps out of our own kernels, by their definitions, equal the lean decoder's."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.decoding.tree import TreeMask
from specbench.models.decoder import LeanDecoder
from specbench.models.kernels.ops import KernelOps
from specbench.models.ops import Ops
from specbench.models.static import StaticDecoder
from tests.unit.models import tiny_checkpoints
from tests.unit.models.recorded import Recorder

TREE = TreeMask.from_parents((-1, -1, 0, 0, 1, 2, 4, 4))


@pytest.mark.parametrize("ops", [Ops, KernelOps])
@pytest.mark.parametrize("name", ["llama3", "qwen3"])
def test_steps_equal_the_eager_forward(tmp_path, name, ops):
    path = tiny_checkpoints.write(tmp_path, name)
    module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    lean = LeanDecoder(module, name, torch.device("cpu"), torch.float64)
    recorder = Recorder()
    static = StaticDecoder(lean, ops(), recorder)
    static.prepare()
    caches = [model.new_cache(2, 256) for model in (lean, static)]
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        if number == 3:
            static.settle()
        for count, mask in ((40 if number == 0 else 1, None), (9, TREE), (5, None)):
            tokens = torch.randint(0, tiny_checkpoints.VOCAB, (2, count), generator=generator)
            want, got = (
                model.forward(tokens, cache, mask=mask)
                for model, cache in zip((lean, static), caches, strict=True)
            )
            torch.testing.assert_close(got, want, atol=1e-11, rtol=1e-11)
            if mask is not None:
                for cache in caches:
                    cache.keep([cache.lengths[0] - 9] * 2, [[0, 2, 5]] * 2)
    assert sum(recorder.replays) >= 3
