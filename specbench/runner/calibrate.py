"""Measure what the parts of a method must know of a model pair, and keep it in files.

Samples come from the end of the task and runs begin at its start, so that a method is not
measured on what it was fitted to; the file names the samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from specbench import calibration
from specbench.calibration import Calibration
from specbench.clock import Clock, clock_for
from specbench.decoding.base import Decoder
from specbench.decoding.calibrated import Calibrated, Calibrating, calibrated_parts
from specbench.decoding.request import Request
from specbench.errors import ConfigError
from specbench.models.pair import ModelPair
from specbench.runner.measure import Bench
from specbench.runner.provenance import provenance
from specbench.runner.setup import Job, load_models
from specbench.schema.config import RunConfig

_TRIED_TOKENS = 16
"""Tokens of the first generation, which nobody keeps: it warms up and tells the pace."""

_TOLD_EVERY = 30.0
"""Seconds between two lines of progress."""


def calibrate(
    config: RunConfig,
    samples: int,
    folder: Path | None = None,
    minutes: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Calibrate every part of the method that needs it.

    Args:
        config: The validated configuration.
        samples: How many samples to take from the end of the task; at most half of them, and no
            more than the task's limit.
        folder: Where to write; None: in the results folder, where runs look first.
        minutes: Refuse what would take longer; None: whatever it takes.
        say: Told beforehand how long it will take, and every half a minute how far it is.

    Returns:
        The files that were written.

    Raises:
        SpecbenchError: If the method has nothing to calibrate, or something that the user can
            mend prevents it.
    """
    unlimited = replace(config, baseline=None, task=replace(config.task, limit=None))
    job = Job.of(unlimited)
    decoder = job.arms[0].decoder
    parts = calibrated_parts(decoder)
    if not parts:
        raise ConfigError(
            f"The method '{config.method.name}' has nothing to calibrate",
            "none of its parts is fitted to a model",
            "Run it as it is.",
        )
    if config.timing.threads is not None:
        torch.set_num_threads(config.timing.threads)
    law, task = job.law, job.task
    decoder.check(law)
    samples = min(samples, config.task.limit or samples)
    models = load_models(config, decoder.needs)
    decoder.prepare(models)
    held_out = task.samples[-max(1, min(samples, len(task.samples) // 2)) :]
    clock = clock_for(models.target.device)
    bench = Bench(job.asked(models), models, clock)
    requests = tuple(bench.request(sample, 0, bench.prompt(sample)) for sample in held_out)
    say(f"calibrating {config.method.name} on {models.name}: trying its pace")
    pace = _seconds_per_token(decoder, models, requests[0], clock)
    progress = _Pace(parts, [request.max_new_tokens for request in requests], pace, say)
    progress.check(minutes)
    about = {
        **provenance(models.target.device),
        "task": task.name,
        "task_digest": task.digest,
        "samples": [sample.id for sample in held_out],
        "made_unix": int(time.time()),
    }
    paths = []
    for part in parts:
        decoder.reset()
        context = Calibrating(decoder, models, requests, clock, progress.decoded)
        values = part.calibrate(context)
        measured = Calibration(
            name=part.calibration_name,
            model=models.name,
            digests=calibration.digests(models),
            law=law.describe(),
            law_hash=law.digest(),
            values=values,
            provenance=about,
        )
        paths.append(measured.save(folder or config.results_dir / calibration.FOLDER))
    return paths


def _seconds_per_token(
    decoder: Decoder, models: ModelPair, request: Request, clock: Clock
) -> float:
    short = replace(request, max_new_tokens=min(request.max_new_tokens, _TRIED_TOKENS))
    for _ in range(2):  # the first one pays for what is made only once
        generation = decoder.generate(models, short, clock)
    return generation.total_ns / 1e9 / max(1, len(generation.tokens))


class _Pace:
    """How long a calibration takes, beforehand and while it runs.

    Args:
        parts: What is calibrated.
        limits: Most new tokens of each request.
        seconds: That a token took when it was tried.
        say: Told of it.
    """

    def __init__(
        self,
        parts: Sequence[Calibrated],
        limits: Sequence[int],
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._most = sum(part.work(limits) for part in parts)
        self._seconds = seconds
        self._samples = len(limits)
        self._say = say
        self._done = 0
        self._told = self._began = time.monotonic()

    def check(self, minutes: float | None) -> None:
        """Say how long it will take, and refuse what takes longer than allowed.

        Raises:
            ConfigError: If it does.
        """
        needed = self._most * self._seconds / 60
        what = f"up to {self._most:,} tokens on {self._samples} samples, about {_shown(needed)}"
        self._say(what)
        if minutes is not None and needed > minutes:
            raise ConfigError(
                f"The calibration would take about {_shown(needed)}",
                f"it decodes {what}; the limit is {_shown(minutes)}",
                "Take fewer --samples, smaller max_new_tokens or, for draft_verify, fewer "
                "method.search_iterations; or allow more --minutes.",
            )

    def decoded(self, tokens: int) -> None:
        """Count the tokens of a generation, and say now and then how far it is."""
        self._done += tokens
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY:
            self._told = now
            left = (self._most - self._done) * (now - self._began) / self._done / 60
            self._say(
                f"{self._done:,} of at most {self._most:,} tokens, at most {_shown(left)} left"
            )


def _shown(minutes: float) -> str:
    """Return a time in words that nobody takes for exact."""
    if minutes < 1:
        return "a minute" if minutes > 0.5 else f"{max(1, round(60 * minutes))} seconds"
    if minutes < 90:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.0f} hours" if minutes < 60 * 48 else f"{minutes / 1440:.0f} days"
