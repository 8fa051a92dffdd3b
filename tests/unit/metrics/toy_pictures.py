"""Pictures and a small feature extractor for the tests of quality metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from specbench.metrics.base import Picture


def picture(
    pixels: np.ndarray, prompt: str = "a photo of a circle", category: str = "", **reference: Any
) -> Picture:
    """Wrap pixels."""
    return Picture("one", category, prompt, reference or None, pixels)


def gallery(pixels: Sequence[np.ndarray], prompts: Sequence[str] | None = None) -> list[Picture]:
    """Wrap many pixels."""
    words = prompts or ["a photo of a circle"] * len(pixels)
    return [
        Picture(str(index), "", prompt, None, one)
        for index, (one, prompt) in enumerate(zip(pixels, words, strict=True))
    ]


class MeanColors:
    """Mean and spread of each channel: six features without weights."""

    protocol = "mean colours"
    width = 6

    def __init__(self) -> None:
        self.extracted = 0

    def prepare(self, metric: str) -> None:
        """Do nothing."""

    def digest(self) -> str:
        """Name it."""
        return "mean colours"

    def extract(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """Return float64 [n, 6]."""
        rows = []
        for one in pictures:
            flat = one.reshape(-1, 3).astype(np.float64)
            rows.append(np.concatenate([flat.mean(0), flat.std(0)]))
        self.extracted += len(rows)
        return np.stack(rows)
