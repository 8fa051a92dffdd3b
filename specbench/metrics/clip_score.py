"""CLIP score: how well a picture fits its caption (Hessel et al., 2021), without references."""

from __future__ import annotations

from collections.abc import Sequence

from specbench.metrics.base import Better, Picture
from specbench.metrics.framing import Framing
from specbench.metrics.openclip import OpenClip


class ClipScore:
    """The cosine between the embeddings of a picture and of its caption, times a factor.

    Published numbers differ by model, by prefix and by factor. LANTERN (its released
    entrypoints/eval_fid_clip.py) uses ViT-B/32 of OpenAI on the central square at 256 pixels, the
    prefix "A photo depicts" and the plain cosine; SJD (evaluation_metrics.py) uses ViT-B/16 on
    pictures squeezed to 299 pixels, no prefix and 100 times the cosine.

    Args:
        name: The metric's id.
        model: open_clip's name of the architecture, `embedded:NAME`, or a folder.
        pretrained: open_clip's tag of the weights.
        checkpoint: A local weights file, for machines without a network.
        prefix: Put before every caption, with one space between.
        scale: Factor on the cosine.
        crop: What happens to a picture before CLIP's own resize; see `framing.Framing`.
        size: Pixels to resize to before that, such as LANTERN's 256; None leaves pictures alone.
        filter: Filter of that first resize.
        device: Where it runs; "auto" takes a GPU where there is one.
        batch: Pictures or texts in one forward.
    """

    version = 1
    better: Better = "higher"

    def __init__(
        self,
        name: str = "clip_score",
        model: str = "ViT-B-32",
        pretrained: str | None = "openai",
        checkpoint: str | None = None,
        prefix: str = "",
        scale: float = 100.0,
        crop: str = "none",
        size: int | None = None,
        filter: str = "lanczos",
        device: str = "auto",
        batch: int = 64,
    ) -> None:
        self.name = name
        self.unit = "" if scale == 1 else f"{scale:g} x cosine"
        self._prefix, self._scale = prefix.strip(), scale
        self._framing = Framing(crop, size, filter)
        self._clip = OpenClip(name, model, pretrained, checkpoint, device, batch)
        words = f"prefix '{self._prefix}'" if self._prefix else "no prefix"
        steps = [self._clip.protocol, *self._framing.words, words, f"{scale:g} x cosine"]
        self.protocol = ", ".join(steps)

    def prepare(self) -> None:
        """Load the model; raise a `SpecbenchError` that names a missing file."""
        self._clip.prepare()

    def score(self, pictures: Sequence[Picture]) -> list[float | None]:
        """Return the score of each picture; None for one without a caption."""
        asked = [picture for picture in pictures if picture.prompt]
        if not asked:
            return [None] * len(pictures)
        captions = list(dict.fromkeys(f"{self._prefix} {p.prompt}".strip() for p in asked))
        rows = {caption: row for row, caption in enumerate(captions)}
        texts = self._clip.texts(captions)[
            [rows[f"{self._prefix} {picture.prompt}".strip()] for picture in asked]
        ]
        images = self._clip.pictures([self._framing(picture.pixels) for picture in asked])
        values = iter(((images * texts).sum(dim=1) * self._scale).tolist())
        return [next(values) if picture.prompt else None for picture in pictures]
