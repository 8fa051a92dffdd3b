"""What evaluations do to a picture before a network's own preprocessing: crop it, and resize it.

Which pixels a filter looks at moves published numbers. Pillow's filters see every pixel
(antialiasing); torch's see the few around each new one, whatever is left out between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from specbench.errors import ConfigError

Pixels = NDArray[np.uint8]

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}
TORCH_FILTERS = {
    "torch_bicubic": "bicubic without antialiasing",
    "torch_bilinear": "bilinear without antialiasing",
}
"""torch's filters, with their names for protocols."""


class Framing:
    """The first crop and resize of an evaluation.

    Args:
        crop: "center" cuts the largest central square, "none" not.
        size: Side in pixels to resize to; None leaves pictures alone.
        filter: One of `FILTERS` or `TORCH_FILTERS`.

    Attributes:
        words: The steps for a protocol; empty where nothing is done.

    Raises:
        ConfigError: If a word is unknown.
    """

    def __init__(
        self, crop: str = "none", size: int | None = None, filter: str = "lanczos"
    ) -> None:
        choose("crop", crop, ("none", "center"))
        choose("filter", filter, (*FILTERS, *TORCH_FILTERS))
        self._crop, self._size, self._filter = crop, size, filter
        self.words: list[str] = ["central square"] if crop == "center" else []
        if size is not None:
            self.words.append(f"{size} px {TORCH_FILTERS.get(filter, filter)}")

    def __call__(self, picture: Pixels) -> Pixels:
        """Cut and resize a picture, uint8 [H, W, 3]."""
        if self._crop == "center":
            height, width = picture.shape[:2]
            side = min(height, width)
            top, left = round((height - side) / 2), round((width - side) / 2)
            picture = picture[top : top + side, left : left + side]
        if self._size is None:
            return picture
        if self._filter in FILTERS:
            image = Image.fromarray(picture).resize((self._size, self._size), FILTERS[self._filter])
            return np.asarray(image)
        return self._without_antialiasing(picture, self._size)

    def _without_antialiasing(self, picture: Pixels, size: int) -> Pixels:
        """Resize as releases do with tensors.

        LlamaGen resizes what its decoder draws, then scales, cuts and truncates it to bytes after
        adding a half (`sample_c2i_ddp.py`); SJD hands bytes to torch (`evaluation_metrics.py`).
        """
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        mode = self._filter.removeprefix("torch_")
        if mode == "bicubic":
            tensor = tensor.float()
        tensor = F.interpolate(tensor, size=(size, size), mode=mode, align_corners=False)
        if mode == "bicubic":
            tensor = (tensor + 0.5).clamp(0, 255).to(torch.uint8)
        resized: Pixels = tensor[0].permute(1, 2, 0).numpy()
        return resized


def choose(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is not among the choices.

    Raises:
        ConfigError: If it is not.
    """
    if value not in choices:
        raise ConfigError(f"{key} is '{value}'", f"it must be one of {', '.join(choices)}")
