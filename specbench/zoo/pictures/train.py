"""Train all that draws and judges pictures: `python -m specbench.zoo.pictures.train --out FOLDER`.

First the tokenizer of pictures, on the world alone, and its decoder once more, on pictures without
things; then the target, on captions and the tokens of
their pictures; then the draft, on the target's law; last, the two networks that judge (Frechet
features and CLIP). Numbers of steps are fixed, so that a seed names the weights up to the rounding
of the machine. As for the text pair, one process of one thread runs per core and gradients are
summed once a step.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from specbench.models.vqgan_files import load_vqgan
from specbench.zoo.checksums import write_checksums
from specbench.zoo.pictures import attribute_net, refine_vq, train_clip, train_features, train_vq
from specbench.zoo.pictures.evaluate import DRAFT_FOLDER, TARGET_FOLDER, VQ_FOLDER
from specbench.zoo.pictures.stream import picture_stream
from specbench.zoo.pictures.tokenizer import build_tokenizer
from specbench.zoo.pictures.train_model import (
    BATCH,
    DRAFT_LAYERS,
    TARGET_LAYERS,
    batches,
    build_model,
    fit,
    load_model,
    save_model,
)

TARGET_STEPS, DRAFT_STEPS = 5400, 1200
STAGES = ("vq", "decoder", "target", "draft", "features", "clip")
_PROCESSES, _SAVE_EVERY = 2, 250
# Streams of different stages share no picture.
_TARGET_STREAM, _DRAFT_STREAM = 1, 2


def train_vq_stage(out: Path, seed: int, steps: int) -> None:
    """Train the tokenizer of pictures: the work of one process of the group."""
    train_vq.train_vq(out / TARGET_FOLDER / VQ_FOLDER, seed, steps)


def refine_decoder_stage(out: Path, seed: int, steps: int) -> None:
    """Teach the tokenizer's decoder pictures without things."""
    refine_vq.refine_vq(out / TARGET_FOLDER / VQ_FOLDER, seed, steps)


def train_target_stage(out: Path, seed: int, steps: int) -> None:
    """Train the target on the tokens of the trained tokenizer."""
    _train_model(out, seed, steps, TARGET_FOLDER, TARGET_LAYERS, _TARGET_STREAM)


def train_draft_stage(out: Path, seed: int, steps: int) -> None:
    """Train the draft on the law of the trained target."""
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


_TOGETHER = {
    "vq": train_vq_stage,
    "decoder": refine_decoder_stage,
    "target": train_target_stage,
    "draft": train_draft_stage,
}


def _work(rank: int, rendezvous: str, out: Path, seed: int, steps: dict[str, int]) -> None:
    """Run the stages in which all processes train one model."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=_PROCESSES)
    for stage, count in steps.items():
        _TOGETHER[stage](out, seed, count)
        dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Train the chosen stages, all by default, and write the checksums of what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--vq-steps", type=int, default=train_vq.STEPS)
    parser.add_argument("--decoder-steps", type=int, default=refine_vq.STEPS)
    parser.add_argument("--target-steps", type=int, default=TARGET_STEPS)
    parser.add_argument("--draft-steps", type=int, default=DRAFT_STEPS)
    options = parser.parse_args()
    counts = {
        "vq": options.vq_steps,
        "decoder": options.decoder_steps,
        "target": options.target_steps,
        "draft": options.draft_steps,
    }
    steps = {stage: counts[stage] for stage in counts if stage in options.stages}
    if steps:
        with tempfile.TemporaryDirectory() as folder:
            arguments = (f"file://{folder}/meet", options.out, options.seed, steps)
            multiprocessing.spawn(_work, args=arguments, nprocs=_PROCESSES)
    for name in (TARGET_FOLDER, DRAFT_FOLDER):
        if (options.out / name).is_dir():
            write_checksums(options.out / name)
    torch.set_num_threads(1)
    if "features" in options.stages:
        train_features.build(options.out / attribute_net.FOLDER, options.seed, train_features.STEPS)
    if "clip" in options.stages:
        train_clip.build(options.out / train_clip.FOLDER, options.seed, train_clip.STEPS)


if __name__ == "__main__":
    main()
