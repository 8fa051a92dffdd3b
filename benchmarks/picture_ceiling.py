"""Print what the embedded image tokenizer costs: real pictures before and behind it.

The rule score behind the tokenizer is the ceiling of what any model over its codes can reach, and
the Frechet distance behind it is what remains of a model that draws without a fault.

    python -m benchmarks.picture_ceiling
"""

from __future__ import annotations

import json
import random

import numpy as np
import torch

from specbench.metrics.base import Picture
from specbench.metrics.distance import FrechetDistance
from specbench.metrics.features import EmbeddedFeatures
from specbench.models.vqgan_files import load_vqgan
from specbench.paths import tasks_dir, weights_dir
from specbench.training.pictures.data import Pictures
from specbench.training.pictures.evaluate import TARGET_FOLDER, VQ_FOLDER, to_pixels
from specbench.training.pictures.vq import to_tensor
from specbench.zoo.pictures.detector import judge
from specbench.zoo.pictures.render import render_batch
from specbench.zoo.pictures.scene import scene_of

_SEEDS = 1 << 51


def main() -> None:
    """Print one line for the real pictures of the task `shapes` and one for the decoded ones."""
    lines = (tasks_dir() / "shapes.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    scenes = [scene_of(random.Random(index), row["prompt"]) for index, row in enumerate(rows)]
    real = render_batch(scenes, range(_SEEDS, _SEEDS + len(scenes)))
    vq = load_vqgan(weights_dir() / TARGET_FOLDER / VQ_FOLDER)
    codes = vq.encode(to_tensor(Pictures(scenes, real)))
    counts = torch.bincount(codes.flatten(), minlength=vq.config.codes).double()
    perplexity = torch.special.entr(counts / counts.sum()).sum().exp().item()
    print(f"codes in even use: {perplexity:.0f} of {vq.config.codes}")
    distance = FrechetDistance("shapes_fd", EmbeddedFeatures(), "world", 10000)
    distance.prepare()
    for name, pixels in (("real", real), ("decoded", to_pixels(vq, codes))):
        pictures = [
            Picture(str(index), row["tag"], row["prompt"], row, picture)
            for index, (row, picture) in enumerate(zip(rows, pixels, strict=True))
        ]
        right = np.mean([judge(row, p.pixels).right for row, p in zip(rows, pictures, strict=True)])
        value = distance.measure(pictures)
        print(
            f"{name:<8} rule score {right:.3f}  FD {value.value:.3f}  floor {value.floor or 0:.3f}"
        )


if __name__ == "__main__":
    main()
