"""Does verifying several tokens ever cost less than decoding one? It must not.

    python -m benchmarks.verify_cost [--layers 30 --vocabulary 49152] [--lengths 150 600 2000]

A plain step is the denominator of every speedup. Where a forward of one token costs more than
one of five, a method that accepts nothing would gain. This times forwards of 1 to 33 tokens
behind several lengths, in every dtype, on random weights in the shape of a Llama of 135 million
parameters (9 heads in 3 groups) and with as many groups as heads, and exits with 1 where a forward
of several tokens took less than one of a single token by more than the tolerance. It also prints
what a plain step costs in the two forms of attention that `specbench/models/attention.py` chooses
between.

It runs in one thread. All counts and both forms take turns, and the least processor time of each
is compared: what else runs on a machine only adds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.models import attention, decoder
from specbench.models.decoder import LeanDecoder
from specbench.models.random_weights import RandomModel, random_weights
from specbench.schema.shape import Shape

# fewer layers and ids than the real one has: what a token costs beside attention hides less
SHAPE = Shape("llama_135m", "Llama of 135 million", 576, 4, 9, 3, 64, 1536, 8192, tied=True)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
COUNTS = (1, 2, 5, 11, 33)
TOLERANCE = 0.03
"""Share by which the least of some times may be off."""


def main() -> None:
    """Measure, print, and exit with 1 where several tokens cost less than one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=SHAPE.layers, help="30 in the real shape")
    parser.add_argument("--vocabulary", type=int, default=SHAPE.vocabulary, help="49152 in it")
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 150, 600, 2000])
    parser.add_argument("--tries", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"milliseconds of a forward of {', '.join(map(str, COUNTS))} tokens")
    broken = []
    for groups in (SHAPE.key_value_heads, SHAPE.heads):
        shape = replace(
            SHAPE,
            layers=options.layers,
            vocabulary=options.vocabulary,
            key_value_heads=groups,
        )
        for dtype in DTYPES:
            model = _model(shape, dtype, max(options.lengths) + max(COUNTS))
            for length in options.lengths:
                label = f"{groups} groups, {str(dtype)[6:]:>8}, {length:>4} cached"
                times = _least(model, length, options.tries)
                several = min(times[count] for count in COUNTS[1:])
                shown = " ".join(f"{1e3 * times[count]:7.2f}" for count in COUNTS)
                before = times[0] / times[1]
                print(f"{label}: {shown}   plain step {before:.2f}x faster than grouped")
                if several < (1 - TOLERANCE) * times[1]:
                    broken.append(f"{label}: {several / times[1]:.2f} of a plain step")
    for line in broken:
        print(f"verifying costs less than one plain step: {line}", file=sys.stderr)
    sys.exit(1 if broken else 0)


def _model(shape: Shape, dtype: torch.dtype, longest: int) -> LeanDecoder:
    random = RandomModel(shape, longest, torch.device("cpu"), dtype)
    return LeanDecoder(random_weights(random), shape.name)


def _least(model: LeanDecoder, length: int, tries: int) -> dict[int, float]:
    """Return the least time of a forward by its tokens; 0 stands for one in the grouped form."""
    cache = model.new_cache(1, model.context)
    times: dict[int, list[float]] = {count: [] for count in (0, *COUNTS)}
    for _ in range(tries):
        for count, taken in times.items():
            decoder.attend = attention.attend if count else _grouped
            tokens = torch.zeros(1, max(count, 1), dtype=torch.long)
            cache.truncate([0])
            cache.advance(length)
            began = time.process_time()
            model.forward(tokens, cache)
            taken.append(time.process_time() - began)
    decoder.attend = attention.attend
    return {count: min(taken) for count, taken in times.items()}


def _grouped(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    visible: Tensor | None = None,
    *,
    causal: bool = False,
) -> Tensor:
    """Attend with the kernel's own grouping of heads, whatever is asked."""
    grouped = queries.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, is_causal=causal, enable_gqa=grouped
    )


if __name__ == "__main__":
    main()
