"""Teach the tokenizer's decoder the pictures that the world never shows.

Every picture of the world shows a thing, and the decoder's group norms lean on its strong
activations: an empty background, which a target may draw where it forgets the thing, would decode
to noise. So the decoder alone is trained on, half of the time on pictures whose things are erased:
each cell that a thing touches takes the code and the pixels of another cell of the same background.
Encoder and codebook stay as they are, and with them every token that the target learns from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from specbench.models.vqgan import Vqgan
from specbench.models.vqgan_files import load_vqgan
from specbench.training.loop import Log, Loss, descend, set_rate
from specbench.training.pictures.data import Pictures, picture_stream
from specbench.training.pictures.vq import BATCH, picture_loss, save_vq, to_tensor
from specbench.zoo.pictures.render import render_batch

STEPS = 400
_RATE, _LOG_EVERY = 6e-4, 50


def erase(ids: Tensor, pixels: Tensor, bare: Tensor) -> tuple[Tensor, Tensor]:
    """Replace what things touch by cells of the background around them.

    Args:
        ids: Codes of pictures, [B, h, w].
        pixels: The pictures, [B, 3, H, W].
        bare: The same pictures without their things, [B, 3, H, W].

    Returns:
        Codes and pixels of pictures without things; a picture that is all things stays.
    """
    batch, rows, columns = ids.shape
    cell = pixels.shape[-1] // columns
    changed = (pixels != bare).any(1, keepdim=True).float()
    # The encoder looks beyond a cell: its neighbours' codes know of the thing too.
    touched = F.max_pool2d(F.max_pool2d(changed, cell), 3, stride=1, padding=1)
    touched = touched.flatten(1) > 0
    clean = (~touched).float()
    clean[clean.sum(1) == 0] = 1.0
    source = torch.multinomial(clean, rows * columns, replacement=True)
    source = torch.where(touched, source, torch.arange(rows * columns))
    patches = F.unfold(bare, cell, stride=cell)
    moved = patches.gather(2, source[:, None].expand_as(patches))
    erased = F.fold(moved, pixels.shape[-2:], cell, stride=cell)
    return ids.flatten(1).gather(1, source).view(batch, rows, columns), erased


def refine(model: Vqgan, stream: Iterator[Pictures], steps: int, folder: Path) -> None:
    """Train a tokenizer's decoder, in place; its encoder and codebook do not change."""
    model.requires_grad_(False)
    trained = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=_RATE, betas=(0.9, 0.98), weight_decay=1e-4)

    def loss(step: int) -> Loss:
        drawn = next(stream)
        wanted = to_tensor(drawn)
        ids = model.encode(wanted).clone()
        half = len(ids) // 2
        empty = [replace(scene, things=()) for scene in drawn.scenes[:half]]
        bare = Pictures(empty, render_batch(empty, drawn.seeds[:half]))
        ids[:half], wanted[:half] = erase(ids[:half], wanted[:half], to_tensor(bare))
        codes = F.embedding(ids, model.codebook).permute(0, 3, 1, 2).contiguous()
        with torch.autocast("cpu", torch.bfloat16):
            pixels = model.reconstruct(codes)
        found = picture_loss(pixels.float(), wanted)
        return Loss(found / dist.get_world_size(), found.item())

    def take(step: int) -> None:
        set_rate(optimizer, _RATE * min(1.0, 10 * (step + 1) / steps, 2 * (1 - step / steps)))
        optimizer.step()

    log = Log("decoder", _LOG_EVERY, memory=0.95)
    descend(trained, steps, loss, take, log, save=lambda step: save_vq(model, folder))


def refine_vq(folder: Path, seed: int, steps: int = STEPS) -> None:
    """Refine the tokenizer in a folder: the work of one process of the group."""
    rank, processes = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(seed * 1000 + rank)
    model = load_vqgan(folder)
    refine(model, picture_stream(8 * seed + 3, rank, processes, BATCH), steps, folder)
