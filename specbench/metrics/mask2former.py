"""GenEval's detector: Mask2Former for COCO instances, through transformers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from specbench.errors import ModelError
from specbench.metrics.features import pick_device
from specbench.metrics.geneval import Detection
from specbench.metrics.weights import first_line, option, reach_hub

HUB = "facebook/mask2former-swin-small-coco-instance"
CANDIDATES = 100

_STANDS_FOR_ALL = "model.safetensors"

# COCO's 80 classes in the order of its instance annotations, as GenEval names them
# (evaluation/object_names.txt: three of them carry "computer" or "tv" before COCO's own name).
_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports
ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine
glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot
dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
computer mouse, tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink,
refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""

COCO = tuple(name.strip() for name in _NAMES.replace("\n", " ").split(","))


class _Candidates(NamedTuple):
    """The best candidates of one picture.

    Attributes:
        labels: Class numbers, int64 [n].
        scores: Confidences [n].
        masks: Where they are, bool [n, H, W].
    """

    labels: Tensor
    scores: Tensor
    masks: Tensor


class Mask2Former:
    """Mask2Former with the postprocessing of mmdet, which GenEval was built on.

    The 100 best pairs of query and class become candidates; the confidence is the class
    probability times the mean mask probability inside the mask, and the box is the mask's own
    (mmdet, `MaskFormerFusionHead.instance_postprocess` and `mask2bbox`). transformers' own
    postprocessing squeezes masks to 384 x 384 and gives no boxes.

    Args:
        weights: A folder in transformers' format, or the hub's name of one.
        revision: The hub's revision; not used with a folder.
        device: Where it runs; "auto" takes a GPU where there is one.
    """

    def __init__(
        self, weights: str = HUB, revision: str | None = None, device: str = "auto"
    ) -> None:
        self._weights, self._revision = weights, revision
        self._device = pick_device(device)
        self._model: Any = None
        self._processor: Any = None
        self.protocol = f"Mask2Former {weights}" + (f" at {revision[:8]}" if revision else "")

    def prepare(self, metric: str) -> None:
        """Load model and processor; transformers fetches what it lacks.

        Raises:
            ModelError: If the weights can be neither found nor fetched, or have other classes.
        """
        if self._model is not None:
            return
        from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

        place = Path(self._weights).expanduser()
        key = "detector_weights"
        local = place.is_dir()
        source = str(place) if local else self._weights
        fetched: contextlib.AbstractContextManager[None] = (
            contextlib.nullcontext()
            if local
            else reach_hub(metric, source, _STANDS_FOR_ALL, key, self._revision)
        )
        try:
            with fetched:
                processor = AutoImageProcessor.from_pretrained(
                    source, revision=self._revision, trust_remote_code=False
                )
                model = Mask2FormerForUniversalSegmentation.from_pretrained(
                    source, revision=self._revision, trust_remote_code=False
                )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{metric} cannot load its detector from {source}",
                first_line(error),
                f"Give a folder that save_pretrained wrote: {option(metric, key)}=PATH",
            ) from error
        if model.config.num_labels != len(COCO):
            raise ModelError(
                f"{metric} needs a detector of COCO's {len(COCO)} classes",
                f"{self._weights} has {model.config.num_labels}",
                f"Correct {option(metric, key)}.",
            )
        self._processor = processor
        self._model = model.to(self._device).eval().requires_grad_(False)

    def detect(self, pixels: NDArray[np.uint8]) -> list[Detection]:
        """Return the 100 best candidates of a picture, uint8 [H, W, 3], in any order."""
        assert self._model is not None, "prepare() comes first"
        inputs = self._processor(images=[pixels], return_tensors="pt")
        with torch.inference_mode():
            out = self._model(pixel_values=inputs["pixel_values"].to(self._device))
            best = candidates(
                out.class_queries_logits[0], out.masks_queries_logits[0], pixels.shape[:2]
            )
        scores, labels = best.scores.tolist(), best.labels.tolist()
        masks = best.masks.cpu().numpy()
        return [
            Detection(COCO[label], score, box_of(mask), mask)
            for label, score, mask in zip(labels, scores, masks, strict=True)
            if mask.any()
        ]


def candidates(classes: Tensor, masks: Tensor, size: tuple[int, int]) -> _Candidates:
    """Return the best pairs of query and class.

    Args:
        classes: Class logits [queries, classes + 1], "nothing" last.
        masks: Mask logits [queries, h, w].
        size: Height and width of the picture.
    """
    probabilities = classes.softmax(dim=-1)[:, :-1]
    number = probabilities.shape[1]
    scores, best = probabilities.flatten().topk(min(CANDIDATES, probabilities.numel()))
    queries = torch.div(best, number, rounding_mode="floor")
    full = F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]
    chosen = full[queries]
    inside = chosen > 0
    sure = (chosen.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    return _Candidates(best % number, scores * sure, inside)


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return the box of a mask that is not empty: left, upper, one past right, one past lower."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
