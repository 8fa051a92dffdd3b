"""Train all that draws and judges pictures.

`python -m specbench.training.pictures.recipe --out FOLDER` trains first the tokenizer of pictures,
on the world alone, and its decoder once more, on pictures without things; then the target, on
captions and the tokens of their pictures; then the draft, on the target's law; last, the two
networks that judge (Frechet features and CLIP).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from specbench.models.vqgan_files import load_vqgan
from specbench.training.loop import in_processes
from specbench.training.pictures import clip, decoder, features, vq
from specbench.training.pictures.data import picture_stream
from specbench.training.pictures.evaluate import DRAFT_FOLDER, TARGET_FOLDER, VQ_FOLDER
from specbench.training.pictures.model import (
    BATCH,
    DRAFT_LAYERS,
    TARGET_LAYERS,
    batches,
    build_model,
    fit,
    load_model,
    save_model,
)
from specbench.training.pictures.tokenizer import build_tokenizer
from specbench.training.saving import write_checksums
from specbench.zoo.pictures import attribute_net

STEPS = {
    "vq": vq.STEPS,
    "decoder": decoder.STEPS,
    "target": 5400,
    "draft": 1200,
    "features": features.STEPS,
    "clip": clip.STEPS,
}
"""Optimizer steps of each stage, in their order."""

_SAVE_EVERY = 250
# Streams of different stages share no picture.
_TARGET_STREAM, _DRAFT_STREAM = 1, 2


def _train_vq(out: Path, seed: int, steps: int) -> None:
    vq.train_vq(out / TARGET_FOLDER / VQ_FOLDER, seed, steps)


def _refine(out: Path, seed: int, steps: int) -> None:
    decoder.refine_vq(out / TARGET_FOLDER / VQ_FOLDER, seed, steps)


def _train_target(out: Path, seed: int, steps: int) -> None:
    _train_model(out, seed, steps, TARGET_FOLDER, TARGET_LAYERS, _TARGET_STREAM)


def _train_draft(out: Path, seed: int, steps: int) -> None:
    _train_model(out, seed, steps, DRAFT_FOLDER, DRAFT_LAYERS, _DRAFT_STREAM)


def _train_model(out: Path, seed: int, steps: int, name: str, layers: int, stream: int) -> None:
    rank, processes = dist.get_rank(), dist.get_world_size()
    tokenizer = build_tokenizer()
    vq = load_vqgan(out / TARGET_FOLDER / VQ_FOLDER)
    torch.manual_seed(seed)
    model = build_model(layers, tokenizer)
    teacher = load_model(out / TARGET_FOLDER) if name == DRAFT_FOLDER else None
    pictures = picture_stream(seed * 8 + stream, rank, processes, BATCH)
    learned = batches(tokenizer, vq, pictures, f"captions/{seed}/{stream}/{rank}")
    folder = out / name
    fit(model, teacher, learned, steps, _SAVE_EVERY, lambda: save_model(model, tokenizer, folder))


_TOGETHER: dict[str, Callable[[Path, int, int], None]] = {
    "vq": _train_vq,
    "decoder": _refine,
    "target": _train_target,
    "draft": _train_draft,
}
"""The stages in which all processes train one model."""


def _work(out: Path, seed: int, steps: dict[str, int]) -> None:
    for stage, count in steps.items():
        _TOGETHER[stage](out, seed, count)
        dist.barrier()


def main() -> None:
    """Train the chosen stages, all by default, and write the checksums of what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STEPS, default=list(STEPS))
    for stage, count in STEPS.items():
        parser.add_argument(f"--{stage}-steps", type=int, default=count)
    given = parser.parse_args()
    steps = {stage: getattr(given, f"{stage}_steps") for stage in STEPS if stage in given.stages}
    together = {stage: steps[stage] for stage in _TOGETHER if stage in steps}
    if together:
        in_processes(_work, given.out, given.seed, together)
    for name in (TARGET_FOLDER, DRAFT_FOLDER):
        if (given.out / name).is_dir():
            write_checksums(given.out / name)
    torch.set_num_threads(1)
    if "features" in steps:
        features.build(given.out / attribute_net.FOLDER, given.seed, steps["features"])
    if "clip" in steps:
        clip.build(given.out / clip.FOLDER, given.seed, steps["clip"])


if __name__ == "__main__":
    main()
