"""Where the time of a method goes: split by kind of work, then by function.

    python -m benchmarks.method_profile token_recycling rest --samples 6 --temperature 0

Runs each method on a few embedded prompts, once plainly (for the split of a round into draft,
target and host) and once under the interpreter's profiler (for the functions; its overhead makes
small functions look larger than they are). Prints; asserts nothing.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from collections.abc import Iterator
from typing import Any

import torch

from specbench.clock import CpuClock
from specbench.decoding.base import Decoder
from specbench.decoding.ledger import Generation
from specbench.hosting import HostRequest, compose_jobs
from specbench.runner.measure import Bench
from specbench.runner.setup import Job, load_models
from specbench.schema.build import instantiate
from specbench.schema.config import RunConfig


def main() -> None:
    """Profile the methods named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--task", default="tiny")
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--functions", type=int, default=12, help="lines of the profile")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.methods:
        words = (f"method={name}", f"task={options.task}", f"task.limit={options.samples}")
        request = HostRequest((*words, f"sampling.temperature={options.temperature}"))
        ((_, config),) = compose_jobs(request)
        _profile(config, options.functions)


def _profile(config: RunConfig, functions: int) -> None:
    decoder: Decoder = instantiate(config.method.decoder)
    models = load_models(config, decoder.needs)
    decoder.prepare(models)
    job = Job.of(config).asked(models)
    clock = CpuClock()
    bench = Bench(job, models, clock)

    def generations() -> Iterator[Generation]:
        for sample in job.task.samples:
            decoder.reset()
            request = bench.request(sample, 0, bench.prompt(sample))
            yield decoder.generate(models, request, clock)

    list(generations())
    plain = list(generations())
    profile = cProfile.Profile()
    profile.enable()
    list(generations())
    profile.disable()
    _print_split(config.method.name, plain)
    stats: Any = pstats.Stats(profile)
    stats.strip_dirs().sort_stats("tottime").print_stats(functions)


def _print_split(name: str, generations: list[Generation]) -> None:
    rounds = [entry for generation in generations for entry in generation.rounds[1:]]
    tokens = sum(entry.count.emitted for entry in rounds)
    draft, target, host = (
        sum(getattr(entry, f"{kind}_ns") for entry in rounds) / len(rounds) / 1e6
        for kind in ("draft", "target", "host")
    )
    nodes = sum(entry.count.nodes for entry in rounds) / len(rounds)
    total = draft + target + host
    print(
        f"== {name}: {len(rounds)} rounds, {tokens / len(rounds):.2f} tokens and {nodes:.1f} nodes "
        f"a round; ms a round: draft {draft:.2f}, target {target:.2f}, host {host:.2f} "
        f"({host / total:.0%}); {1e3 * tokens / len(rounds) / total:.0f} tok/s"
    )


if __name__ == "__main__":
    main()
