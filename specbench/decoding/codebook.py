"""Neighbours in the codebook of an image model: which codes look alike.

Relaxed verifiers count the probability of codes near the drafted one. What is near never changes
while a model decodes, so it is computed once, when the loaded models are first seen.

Shapes: K codes, D code width, k neighbours, M tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specbench.errors import ConfigError, did_you_mean
from specbench.models.image import SPACES, ImageSide
from specbench.models.pair import ModelPair

_CHUNK = 512
_NO_MM = "donot_use_mm_for_euclid_dist"


def nearest_codes(codebook: Tensor, count: int) -> Tensor:
    """Return the nearest codes of every code by Euclidean distance, nearest first.

    A code is no neighbour of its own; an equal one is. Of equally distant codes the lowest index
    comes first. Distances are not computed by a matrix product, whose rounding would break ties
    by chance.

    Args:
        codebook: [K, D] float.
        count: k; at most K - 1 are returned.

    Returns:
        [K, k] int32 on the codebook's device.
    """
    codes = codebook.shape[0]
    count = min(count, codes - 1)
    indices = torch.arange(codes, device=codebook.device)
    rows = []
    for start in range(0, codes, _CHUNK):
        chunk = codebook[start : start + _CHUNK].float()
        distances = torch.cdist(chunk, codebook.float(), compute_mode=_NO_MM)
        own = indices[start : start + _CHUNK]
        distances.scatter_(1, own[:, None], torch.inf)
        # The bits of a non-negative float order as integers do: one key holds distance and index.
        keys = distances.view(torch.int32).long() * codes + indices
        nearest = keys.topk(count, dim=1, largest=False).values % codes
        rows.append(nearest.int())
    return torch.cat(rows)


@dataclass(frozen=True)
class Neighbours:
    """The nearest codes of tokens.

    Attributes:
        nearest: [K, k] int32 neighbours of each code.
        first_code: Token id of code 0.
    """

    nearest: Tensor
    first_code: int

    @classmethod
    def of_image(cls, image: ImageSide, count: int, space: str) -> Neighbours:
        """Return the `count` neighbours of each code of an image model; see `image.SPACES`."""
        return cls(nearest_codes(image.vectors(space), count), image.first_code)

    def of(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens near some tokens.

        Args:
            tokens: [M] ids; those that are no codes have no neighbours.

        Returns:
            Ids [M, k], and [M, 1] whether they count, False for what is no code.
        """
        codes = tokens - self.first_code
        last = self.nearest.shape[0] - 1
        inside = (codes >= 0) & (codes <= last)
        near = self.nearest[codes.clamp(0, last)].long() + self.first_code
        return near, inside[:, None]


def check_space(value: str) -> None:
    """Refuse a word that names no space of codes.

    Raises:
        ConfigError: If it is none of `image.SPACES`.
    """
    if value not in SPACES:
        raise ConfigError(
            f"distance={value} is not possible",
            f"the distance of two codes is measured in one of {', '.join(SPACES)}",
            did_you_mean(str(value), SPACES),
        )


def image_of(models: ModelPair, what: str) -> ImageSide:
    """Return the pictures' side of a model pair.

    Args:
        models: The loaded models.
        what: Who needs it, for the message.

    Raises:
        ConfigError: If the model draws no pictures.
    """
    if models.image is None:
        raise ConfigError(
            f"{what} needs an image model, and '{models.name}' has no grid and no codebook",
            "It works on the codes of a picture",
            "Choose a model of images (specbench list models), such as model=tiny_image.",
        )
    return models.image
