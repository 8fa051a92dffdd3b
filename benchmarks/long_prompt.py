"""How fast is a long prompt read, beside transformers' own module? One interleaved run.

    python -m benchmarks.long_prompt --model smollm2_135m --tokens 2000

Both read the same random ids in a cache that is empty; the times take turns, and the ratio is that
of their medians. Peak memory is said too: of the process, after our model was loaded and after it
read the prompt, before transformers' module comes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from specbench.models import checkpoint, engines, load
from specbench.models.base import View
from specbench.models.pretrained import read_settings
from specbench.schema import catalog
from specbench.schema.model import ModelConfig


def peak() -> float:
    """Return the process's peak memory in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="smollm2_135m")
    options.add_argument("--tokens", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--dtype", default="float32")
    options.add_argument("--execution", default="auto")
    asked = options.parse_args()

    before = peak()
    entry = {**catalog.load("model", asked.model), "dtype": asked.dtype}
    pair = load.load_pair(ModelConfig.from_dict(entry), needs=frozenset())
    engines.switch(pair, asked.execution)
    target = pair.target
    ids = torch.randint(3, target.vocab_size, (1, asked.tokens), device=target.device)
    cache = target.new_cache(1, asked.tokens + 1)
    loaded = peak()

    def ours() -> torch.Tensor:
        cache.truncate([0])
        return target.forward(ids, cache, View(last=1))

    ours()
    sizes = target.sizes
    assert sizes is not None
    need = (sizes.weight_bytes + asked.tokens * sizes.cache_bytes_per_token) / 1e9
    print(
        f"peak memory: {before:.2f} GB of libraries, {loaded:.2f} loaded, {peak():.2f} after the "
        f"prompt; weights and cache are {need:.2f} GB, so {(peak() - before) / need:.2f}x of them"
    )

    files = checkpoint.find(entry["target"], entry["target_revision"])
    module = AutoModelForCausalLM.from_pretrained(
        files.location,
        config=read_settings(files),
        dtype=target.dtype,
        trust_remote_code=False,
    )

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        return module(ids, use_cache=True, logits_to_keep=1).logits

    assert torch.equal(ours().argmax(-1), theirs().argmax(-1))
    works: dict[str, Callable[[], torch.Tensor]] = {"ours": ours, "transformers": theirs}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(asked.rounds):
        for name in works if turn % 2 else reversed(works):
            begun = time.perf_counter()
            works[name]()
            times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {seconds:.3f} s, {asked.tokens / seconds:,.0f} tokens/s")
    print(f"ratio: {medians['transformers'] / medians['ours']:.2f}x transformers ({target.engine})")


if __name__ == "__main__":
    main()
