"""Measure what the parts of a method must know of a model pair, and keep it in files.

Samples come from the end of the task and runs begin at its start, so that a method is not
measured on what it was fitted to; the file names the samples.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from specbench import calibration
from specbench.calibration import Calibration
from specbench.clock import clock_for
from specbench.decoding.base import Decoder
from specbench.decoding.calibrated import Calibrating, calibrated_parts
from specbench.errors import ConfigError
from specbench.runner.measure import Bench
from specbench.runner.provenance import provenance
from specbench.runner.setup import load_models, target_law
from specbench.schema.build import instantiate
from specbench.schema.config import RunConfig
from specbench.tasks.config import TaskConfig
from specbench.tasks.load import load_task
from specbench.tasks.prompting import for_tokenizer


def calibrate(config: RunConfig, samples: int, folder: Path | None = None) -> list[Path]:
    """Calibrate every part of the method that needs it.

    Args:
        config: The validated configuration. Its task's limit is not used.
        samples: How many samples to take from the end of the task; at most half of them.
        folder: Where to write; None: in the results folder, where runs look first.

    Returns:
        The files that were written.

    Raises:
        SpecbenchError: If the method has nothing to calibrate, or something that the user can
            mend prevents it.
    """
    decoder: Decoder = instantiate(config.method.decoder)
    parts = calibrated_parts(decoder)
    if not parts:
        raise ConfigError(
            f"The method '{config.method.name}' has nothing to calibrate",
            "none of its parts is fitted to a model",
            "Run it as it is.",
        )
    if config.timing.threads is not None:
        torch.set_num_threads(config.timing.threads)
    law = target_law(config)
    decoder.check(law)
    task = load_task(replace(TaskConfig.from_dict(config.task), limit=None))
    models = load_models(config, decoder.needs)
    decoder.prepare(models)
    task = for_tokenizer(task, models.tokenizer)
    held_out = task.samples[-max(1, min(samples, len(task.samples) // 2)) :]
    clock = clock_for(models.target.device)
    bench = Bench(models, task, law, config.sampling.seed, config.max_new_tokens, clock)
    requests = tuple(bench.request(sample, 0, bench.prompt(sample)) for sample in held_out)
    decoder.generate(models, requests[0], clock)
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
        values = part.calibrate(Calibrating(decoder, models, requests, clock))
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
