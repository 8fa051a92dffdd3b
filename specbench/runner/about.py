"""What a result file says beside its rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from specbench import store
from specbench.audit import fidelity
from specbench.law import Law
from specbench.models.defaults import unfollowed
from specbench.models.pair import ModelPair
from specbench.runner.code import codes
from specbench.runner.provenance import device_name, provenance
from specbench.runner.setup import Job
from specbench.schema.result import COUNTING_VERSION, FileMetadata

PROTOCOL_VERSION = 2
"""Moves when the way of measuring changes, so that old journals are not continued."""


def file_metadata(
    job: Job, models: ModelPair, inputs: Mapping[str, Mapping[str, str]]
) -> FileMetadata:
    """Return the metadata of a job before it has run.

    Args:
        job: What is measured.
        models: The loaded models.
        inputs: For each arm, digests of what its method reads beside the models.
    """
    config, task, law = job.config, job.task, job.law
    device = models.target.device
    chosen = config.identity()
    code = codes(chosen)
    identity = {
        "config": chosen,
        "code": code,
        "task_digest": task.digest,
        "models": models.provenance,
        "inputs": inputs,
        "law": law.digest(),
        "protocol": PROTOCOL_VERSION,
        "device": device_name(device),
    }
    scorers = {scorer.name: scorer.version for scorer in task.scorers()}
    return FileMetadata(
        job_id=store.job_id(identity),
        method=config.method.info(),
        baseline=config.baseline.info() if config.baseline else None,
        model=models.name,
        task=task.name,
        task_version=task.version,
        task_digest=task.digest,
        law=law.describe(),
        law_hash=law.digest(),
        scorer=scorers,
        dtype=str(models.target.dtype).removeprefix("torch."),
        device=device_name(device),
        engine=models.target.engine,
        temperature=law.temperature,
        timing={
            "repeats": config.timing.repeats,
            "processes": config.timing.processes,
            "warmup": config.timing.warmup,
            "threads": torch.get_num_threads(),
            "clock": "cuda events" if device.type == "cuda" else "wall",
            "history": "baseline" if config.baseline else "own",
            "counting": COUNTING_VERSION,
        },
        config=config.to_dict(),
        noise={"fidelity_version": fidelity.VERSION},
        provenance={
            **provenance(device),
            "models": models.described(),
            "checkpoint": {
                "dtype_reason": models.about.dtype_reason,
                "generation_defaults": dict(models.about.defaults),
                "notes": checkpoint_notes(models, law),
            },
            "code": code,
            "inputs": {name: dict(found) for name, found in inputs.items()},
        },
    )


def checkpoint_notes(models: ModelPair, law: Law) -> list[str]:
    """Return what is odd in the checkpoints, and what the run does not take over from them."""
    return [line for line in (*models.about.notes, unfollowed(models.about.defaults, law)) if line]


def job_stem(job: Job, fingerprint: str) -> str:
    """Return the file name of a job; earlier versions named the entry and not its checkpoint."""
    config = job.config
    named = (
        store.result_stem(config.method.name, model, job.task.name, fingerprint)
        for model in (config.model.name, config.model.label)
    )
    earlier, own = named
    return earlier if store.is_begun(config.results_dir, earlier) else own
