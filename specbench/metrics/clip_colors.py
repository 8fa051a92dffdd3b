"""GenEval's colours: CLIP's zero-shot choice among ten, on crops whose background is grey."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from specbench.metrics.geneval import COLORS, Detection
from specbench.metrics.openclip import OpenClip

GREY = (0x99, 0x99, 0x99)
TEMPLATES = ("a photo of a {color} {label}", "a photo of a {color}-colored {label}")
OBJECT_TEMPLATE = "a photo of a {color} object"


class ClipColors:
    """The nearest of ten colours (djghosh13/geneval, evaluation/evaluate_images.py).

    For each colour the mean of three unit text embeddings, made unit again; the picture is cut to
    the box after everything outside the mask has become grey (#999).

    Args:
        model: open_clip's name of the architecture, `embedded:NAME`, or a folder.
        pretrained: open_clip's tag of the weights.
        checkpoint: A local weights file, for machines without a network.
        device: Where it runs; "auto" takes a GPU where there is one.
    """

    def __init__(
        self,
        model: str = "ViT-L-14",
        pretrained: str | None = "openai",
        checkpoint: str | None = None,
        device: str = "auto",
    ) -> None:
        self._clip = OpenClip("geneval", model, pretrained, checkpoint, device, batch=16)
        self._texts: dict[str, Tensor] = {}
        self.protocol = f"{self._clip.protocol} on grey-masked crops"

    def prepare(self, metric: str) -> None:
        """Load CLIP; raise a `SpecbenchError` that names a missing file."""
        self._clip.prepare()

    def read(
        self, pixels: NDArray[np.uint8], detections: Sequence[Detection], label: str
    ) -> list[str]:
        """Return the colour of each detection of a class."""
        if label not in self._texts:
            self._texts[label] = self._classifier(label)
        crops = [crop(pixels, detection) for detection in detections]
        nearest = (self._clip.pictures(crops) @ self._texts[label].T).argmax(dim=1)
        return [COLORS[index] for index in nearest.tolist()]

    def _classifier(self, label: str) -> Tensor:
        """Return one unit embedding for each colour, [colours, D]."""
        templates = (*TEMPLATES, OBJECT_TEMPLATE)
        texts = [t.format(color=color, label=label) for color in COLORS for t in templates]
        parts = self._clip.texts(texts).view(len(COLORS), len(templates), -1)
        return F.normalize(parts.mean(dim=1), dim=-1)


def crop(pixels: NDArray[np.uint8], detection: Detection) -> NDArray[np.uint8]:
    """Return a detection's box, grey outside its mask."""
    image = Image.fromarray(pixels)
    if detection.mask is not None:
        blank = Image.new("RGB", image.size, GREY)
        image = Image.composite(image, blank, Image.fromarray(detection.mask))
    left, upper, right, lower = (round(edge) for edge in detection.box)
    cut: NDArray[np.uint8] = np.asarray(image.crop((left, upper, right, lower)))
    return cut
