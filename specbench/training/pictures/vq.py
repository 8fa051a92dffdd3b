"""Train the image tokenizer of the small world.

Losses are taken in an opponent colour space (brightness and two colour differences), on pixels and
on differences between neighbouring pixels at three scales: what tells a shape from its background
is colour and edges, while plain squared error would spend the codebook on texture. The codebook
follows the encoder by exponential moving averages (van den Oord et al. 2017, "Neural Discrete
Representation Learning", appendix A.1), codes that fall out of use restart from what the encoder
says (Dhariwal et al. 2020, "Jukebox", section 3), and the first steps train without quantisation,
so that the codebook begins as a sample of a meaningful space.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from specbench.models.vqgan import Vqgan, VqganConfig
from specbench.training.loop import Log, Loss, descend, set_rate
from specbench.training.pictures.data import Pictures, picture_stream
from specbench.training.saving import save_half
from specbench.zoo.pictures.scene import SIZE

STEPS, BATCH = 2400, 32
CONFIG = VqganConfig(
    channels=16,
    multipliers=(1, 2, 4),
    blocks=1,
    middle_attention=False,
    resolution=SIZE,
    latent_channels=64,
    codes=512,
    code_width=8,
    norm_groups=8,
)

_RATE, _WARM_UP, _DECAY_FROM = 1.5e-3, 0.02, 0.6
_UNQUANTISED = 0.06
_COMMITMENT, _MEMORY, _RESTART_BELOW = 0.25, 0.98, 0.03
_COLOR_WEIGHT, _EDGE_WEIGHT = 1.5, 1.0
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5))
_LOG_EVERY = 50


def to_tensor(pictures: Pictures) -> Tensor:
    """Return pixels as the tokenizer takes them, [B, 3, H, W] in -1..1."""
    # Convolutions keep the layout of their input; the backward pass of norms is slow in the other.
    pixels = torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2).contiguous()
    return pixels.float().div_(127.5).sub_(1.0)


def picture_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Mean error of opponent colours and of their differences at three scales.

    Pixels are [B, 3, H, W] in -1..1.
    """
    matrix = torch.tensor(_OPPONENT, dtype=drawn.dtype)
    error = torch.einsum("oc,bchw->bohw", matrix, drawn - wanted)
    weights = torch.tensor([1.0, _COLOR_WEIGHT, _COLOR_WEIGHT])[:, None, None]
    error = error * weights
    loss = error.abs().mean() + error.square().mean()
    for scale in range(3):
        if scale:
            error = F.avg_pool2d(error, 2)
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        loss = loss + _EDGE_WEIGHT / 3 * edges
    return loss


class Codebook:
    """The moving averages behind a codebook, the same in every process."""

    def __init__(self, model: Vqgan) -> None:
        self._model = model
        codes, width = model.codebook.shape
        self._counts = torch.ones(codes)
        self._sums = torch.zeros(codes, width)

    def begin(self, points: Tensor) -> None:
        """Begin with codes drawn from the first process's latents, [N, D]."""
        chosen = points[torch.randint(len(points), (len(self._sums),))]
        chosen = chosen.float().contiguous()
        dist.broadcast(chosen, 0)
        self._sums = chosen.clone()
        self._counts.fill_(1.0)
        self._model.codebook.data.copy_(chosen)

    def follow(self, points: Tensor, ids: Tensor) -> None:
        """Move towards the latents of one step.

        Args:
            points: Latents of this process, [N, D].
            ids: Their codes, [N].
        """
        codes, width = self._sums.shape
        points = points.float()
        counts = torch.bincount(ids, minlength=codes).float()
        sums = torch.zeros(codes, width).index_add_(0, ids, points)
        spare = points[torch.randint(len(points), (codes,))]
        if dist.get_rank() != 0:
            spare = torch.zeros_like(spare)
        shared = torch.cat([counts[:, None], sums, spare], 1)
        dist.all_reduce(shared)
        counts, sums, spare = shared[:, 0], shared[:, 1 : 1 + width], shared[:, 1 + width :]
        self._counts.mul_(_MEMORY).add_(counts, alpha=1 - _MEMORY)
        self._sums.mul_(_MEMORY).add_(sums, alpha=1 - _MEMORY)
        mean = self._counts.mean()
        dead = self._counts < _RESTART_BELOW * mean
        self._counts[dead] = mean
        self._sums[dead] = spare[dead] * mean
        self._model.codebook.data.copy_(self._sums / self._counts[:, None])

    def perplexity(self) -> float:
        """Return the exponential of the entropy of how often codes are used."""
        shares = self._counts / self._counts.sum()
        perplexity: float = torch.special.entr(shares).sum().exp().item()
        return perplexity


def fit_vq(model: Vqgan, stream: Iterator[Pictures], steps: int, folder: Path) -> None:
    """Train a tokenizer for a fixed number of steps; the first process prints and saves.

    Runs in every process of an initialised process group.
    """
    codebook = Codebook(model)
    model.codebook.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=_RATE, betas=(0.9, 0.98), weight_decay=1e-4, fused=True
    )
    quantised_from = round(steps * _UNQUANTISED)

    def loss(step: int) -> Loss:
        wanted = to_tensor(next(stream))
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.latents(wanted)
        latents = latents.float()
        points = latents.detach().permute(0, 2, 3, 1).flatten(0, 2)
        if step == quantised_from:
            codebook.begin(points)
        quantised, commitment = latents, torch.zeros(())
        if step >= quantised_from:
            ids = model.nearest(latents.detach())
            codes = F.embedding(ids, model.codebook).permute(0, 3, 1, 2).contiguous()
            commitment = F.mse_loss(latents, codes)
            quantised = latents + (codes - latents).detach()
            codebook.follow(points, ids.flatten())
        with torch.autocast("cpu", torch.bfloat16):
            drawn = model.reconstruct(quantised)
        drawn_loss = picture_loss(drawn.float(), wanted)

        def words() -> str:
            used = f"perplexity {codebook.perplexity():.0f}"
            return f"commitment {commitment.item():.4f}  {used}"

        value = (drawn_loss + _COMMITMENT * commitment) / dist.get_world_size()
        return Loss(value, drawn_loss.item(), words)

    def take(step: int) -> None:
        done = (step + 1) / steps
        factor = min(1.0, done / _WARM_UP, (1 - step / steps) / (1 - _DECAY_FROM))
        set_rate(optimizer, _RATE * factor)
        optimizer.step()

    descend(
        trained,
        steps,
        loss,
        take,
        Log("vq", _LOG_EVERY, memory=0.97),
        save=lambda step: save_vq(model, folder),
        save_every=_LOG_EVERY,
    )


def save_vq(model: Vqgan, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, weights rounded to float16 as shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    params = json.dumps(model.config.to_params(), indent=2) + "\n"
    (folder / "config.json").write_text(params, encoding="utf-8")
    save_half(model, folder / "model.safetensors")


def train_vq(folder: Path, seed: int, steps: int = STEPS) -> None:
    """Train the tokenizer from a seed: the work of one process of the group."""
    torch.manual_seed(seed)
    model = Vqgan(CONFIG)
    rank, processes = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(seed * 1000 + rank)
    fit_vq(model, picture_stream(8 * seed, rank, processes, BATCH), steps, folder)
