"""A small convolutional network whose features measure Frechet distances between pictures.

It stands in for Inception: its penultimate layer carries shapes, colours, counts, places and
tones, so that two sets of pictures with equal feature statistics agree in all of these.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from specbench.zoo.pictures.attributes import AttributeHeads, Attributes

FOLDER = "tiny_features"
WIDTHS = (24, 48, 80)
FEATURES = 64

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


class _Block(nn.Module):  # type: ignore[misc]
    """Two convolutions, the first of which halves the picture."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = F.gelu(self.halve(hidden))
        mixed: Tensor = hidden + F.gelu(self.mix(self.norm(hidden)))
        return mixed


class AttributeNet(nn.Module):  # type: ignore[misc]
    """Pictures to features to attributes."""

    def __init__(
        self, size: int = 48, widths: tuple[int, ...] = WIDTHS, features: int = FEATURES
    ) -> None:
        super().__init__()
        self.size, self.widths, self.width = size, tuple(widths), features
        inputs = (3, *widths)
        blocks = [_Block(a, b) for a, b in zip(inputs, widths, strict=False)]
        self.blocks = nn.Sequential(*blocks)
        cells = (size // 2 ** len(widths)) ** 2
        self.narrow = nn.Conv2d(widths[-1], 32, 1)
        self.out = nn.Linear(32 * cells, features)
        self.heads = AttributeHeads(features)
        self.center: Tensor
        self.spread: Tensor
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    def activations(self, pixels: Tensor) -> Tensor:
        """Return the penultimate layer [N, width] of pictures [N, 3, size, size] in 0 to 1."""
        hidden = self.narrow(self.blocks(pixels * 4 - 2))
        activations: Tensor = self.out(F.gelu(hidden).flatten(1))
        return activations

    def features(self, pixels: Tensor) -> Tensor:
        """Return the activations in units of their spread over real pictures, [N, width].

        So no feature outweighs the others, and distances are comparable between networks.
        """
        return (self.activations(pixels) - self.center) / self.spread

    def standardise(self, pixels: Tensor) -> None:
        """Take mean and spread of the activations from real pictures [N, 3, size, size]."""
        with torch.inference_mode():
            found = torch.cat([self.activations(part) for part in pixels.split(256)])
        self.center.copy_(found.mean(0))
        self.spread.copy_(found.std(0))

    def forward(self, pixels: Tensor) -> Attributes:
        """Return what pictures [N, 3, size, size] in 0 to 1 show."""
        read: Attributes = self.heads(F.gelu(self.activations(pixels)))
        return read

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` (float16)."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"size": self.size, "widths": self.widths, "features": self.width}
        (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> AttributeNet:
        """Read a folder that `save` wrote; the network comes in float32 and evaluation mode."""
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        net = cls(config["size"], tuple(config["widths"]), config["features"])
        net.load_state_dict({k: v.float() for k, v in load_file(folder / _WEIGHTS).items()})
        net.eval()
        net.requires_grad_(False)
        return net


def extract(net: AttributeNet, pixels: Tensor, batch: int = 256) -> Tensor:
    """Return the features of many pictures, float32 [N, width]."""
    with torch.inference_mode():
        return torch.cat([net.features(part) for part in pixels.split(batch)])
