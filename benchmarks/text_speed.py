"""Speed of the text engine against transformers' own generation, on the same weights.

    python -m benchmarks.text_speed [--model FOLDER] [--draft FOLDER] [--repeats N]

Each pair runs interleaved in one process, batch 1, greedy, exactly 128 new tokens, with the same
prompts, dtype and threads. The printed ratio is the median over prompts and repeats of the
paired time ratios; the rates beside it are medians too. The tokens of both sides are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table as RichTable
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from specbench.clock import CpuClock
from specbench.compare import Comparison, compare
from specbench.decoding.base import Decoder
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.drafters.prompt_lookup import PromptLookup
from specbench.decoding.ledger import Generation
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.hosting import HostRequest, compose_jobs
from specbench.law import Law
from specbench.models.decoder import LeanDecoder
from specbench.models.engines import run_by
from specbench.models.pair import ModelPair
from specbench.paths import tasks_dir, weights_dir
from specbench.report import table
from specbench.rng import Streams
from specbench.runner import run_job
from specbench.store import read_many

NEW_TOKENS = 128
DRAFT_LENGTH = 4
LOOKUP_LENGTH = 10
LOOKUP_NGRAM = 3
CPU = torch.device("cpu")


@dataclass
class Line:
    """One measured pair: its name, both rates in tokens per second, ratio and agreement."""

    name: str
    ours: float
    theirs: float
    ratio: float
    identical: str
    host_share: float


def main() -> None:
    """Run every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(weights_dir() / "tiny_text_target"))
    parser.add_argument("--draft", default=str(weights_dir() / "tiny_text_draft"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-tasks", action="store_true", help="engine pairs only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    prompts = embedded_prompts(arguments.model, arguments.prompts)
    lines: list[Line] = []
    for dtype in (torch.float32, torch.bfloat16):
        lines += embedded_pair(arguments, dtype, prompts)
    for dtype in (torch.float32, torch.bfloat16):
        lines.append(random_llama(dtype, arguments.repeats, prompts[:2]))
    show(lines, arguments.threads)
    if not arguments.skip_tasks:
        end_to_end(arguments.threads)


def end_to_end(threads: int) -> None:
    """Run `token_sd` against `ar` on two embedded tasks through the runner; print the table."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "method=token_sd",
            "task=tiny_math,tiny_code",
            "task.limit=40",
            f"timing.threads={threads}",
            f"results_dir={folder}",
        ]
        jobs = compose_jobs(HostRequest(overrides, multirun=True, config_dir=None))
        for _, config in jobs:
            run_job(config)
        print_table(compare(read_many([folder])))


def print_table(comparison: Comparison) -> None:
    """Print a comparison as wide as it wants to be."""
    console = Console(width=140)
    console.print(table.render(comparison, width=140))


def embedded_pair(
    arguments: argparse.Namespace, dtype: torch.dtype, prompts: Sequence[list[int]]
) -> list[Line]:
    """Measure the three methods against their counterparts on one pair of checkpoints."""
    target = load(arguments.model, dtype)
    draft = load(arguments.draft, dtype)
    models = ModelPair(
        "pair",
        run_by(LeanDecoder.of(load(arguments.model, dtype), "target", CPU, dtype), "auto"),
        run_by(LeanDecoder.of(load(arguments.draft, dtype), "draft", CPU, dtype), "auto"),
    )
    draft.generation_config.num_assistant_tokens = DRAFT_LENGTH
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0
    chain, verifier = Chain(), TokenSD()
    speculative = DraftVerify(ModelDrafter(), chain, Constant(DRAFT_LENGTH), verifier)
    lookup = DraftVerify(
        PromptLookup(LOOKUP_NGRAM, 1, LOOKUP_LENGTH), chain, Constant(LOOKUP_LENGTH), SampleMatch()
    )
    pairs: list[tuple[str, Decoder, dict[str, Any]]] = [
        ("ar / generate", Autoregressive(), {}),
        ("token_sd / assisted", speculative, {"assistant_model": draft}),
        (
            "pld / prompt lookup",
            lookup,
            {
                "prompt_lookup_num_tokens": LOOKUP_LENGTH,
                "max_matching_ngram_size": LOOKUP_NGRAM,
            },
        ),
    ]
    name = str(dtype).removeprefix("torch.")
    return [
        interleave(
            f"{title} ({name})", models, decoder, target, options, prompts, arguments.repeats
        )
        for title, decoder, options in pairs
    ]


def random_llama(dtype: torch.dtype, repeats: int, prompts: Sequence[list[int]]) -> Line:
    """Measure plain decoding on a random 12-layer, 768-wide Llama."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=1024,
    )
    module = LlamaForCausalLM(config).to(dtype).eval()
    theirs = LlamaForCausalLM(config).to(dtype).eval()
    theirs.load_state_dict(module.state_dict())
    models = ModelPair("random", run_by(LeanDecoder.of(module, "random", CPU, dtype), "auto"))
    name = f"ar / generate, 12 x 768 ({str(dtype).removeprefix('torch.')})"
    return interleave(name, models, Autoregressive(), theirs, {}, prompts, repeats)


def interleave(
    name: str,
    models: ModelPair,
    decoder: Decoder,
    module: Any,
    options: dict[str, Any],
    prompts: Sequence[list[int]],
    repeats: int,
) -> Line:
    """Time both sides in turn on every prompt, ABBA, after one warm-up."""
    ours: list[float] = []
    theirs: list[float] = []
    same: list[bool] = []
    host: list[float] = []
    for index, prompt in enumerate(prompts):
        sides = [
            lambda prompt=prompt: our_generation(models, decoder, prompt),
            lambda prompt=prompt: their_generation(module, prompt, options),
        ]
        if index == 0:
            for side in sides:
                side()
        for repeat in range(repeats):
            flip = bool((index + repeat) % 2)
            results: dict[int, tuple[float, Any]] = {}
            for side in (1, 0) if flip else (0, 1):
                results[side] = timed(sides[side])
            generation: Generation = results[0][1]
            ours.append(results[0][0])
            theirs.append(results[1][0])
            same.append(list(generation.tokens) == results[1][1])
            host.append(sum(r.host_ns for r in generation.rounds) / generation.total_ns)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Line(
        name,
        NEW_TOKENS / statistics.median(ours),
        NEW_TOKENS / statistics.median(theirs),
        statistics.median(ratios),
        f"{sum(same)}/{len(same)}",
        statistics.median(host),
    )


def our_generation(models: ModelPair, decoder: Decoder, prompt: list[int]) -> Generation:
    """Generate with specbench; no stop token, as on the other side."""
    request = Request(tuple(prompt), NEW_TOKENS, Law(temperature=0), Streams(0, "bench"))
    return decoder.generate(models, request, CpuClock())


def their_generation(module: Any, prompt: list[int], options: dict[str, Any]) -> list[int]:
    """Generate with transformers; its end-of-text token is switched off."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
            use_cache=True,
            **options,
        )
    return list(output[0, ids.shape[1] :].tolist())


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def load(folder: str, dtype: torch.dtype) -> Any:
    """Load a checkpoint's module with its end-of-text token switched off."""
    module = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, trust_remote_code=False
    ).eval()
    module.generation_config.eos_token_id = None
    return module


def embedded_prompts(model: str, count: int) -> list[list[int]]:
    """Return the first prompts of every embedded task, through the chat template."""
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    prompts = []
    files = sorted(Path(tasks_dir()).glob("tiny_*.jsonl"))
    for place in range(-(-count // len(files))):
        for file in files:
            question = json.loads(file.read_text().splitlines()[place])["turns"][0]
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True
            )
            prompts.append(list(ids["input_ids"] if not isinstance(ids, list) else ids))
    return prompts[:count]


def show(lines: Sequence[Line], threads: int) -> None:
    """Print the table."""
    lines_table = RichTable(title=f"{NEW_TOKENS} new tokens, batch 1, greedy, {threads} threads")
    lines_table.add_column("pair", no_wrap=True)
    for heading in ("ours tok/s", "theirs tok/s", "ratio", "identical", "host share"):
        lines_table.add_column(heading, justify="right")
    for line in lines:
        lines_table.add_row(
            line.name,
            f"{line.ours:.0f}",
            f"{line.theirs:.0f}",
            f"{line.ratio:.2f}x",
            line.identical,
            f"{line.host_share:.1%}",
        )
    Console(width=100).print(lines_table)


if __name__ == "__main__":
    main()
