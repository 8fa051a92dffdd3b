"""The conditioning rows of LlamaGen: an ImageNet class, or features of a caption.

FoundationVision/LlamaGen (autoregressive/models/gpt.py and generate.py). Both kinds have a learned
condition for "nothing in particular": class number 1000, or 120 features that are no caption's.

Shapes: K codes, C channels, N condition slots, E width of a caption feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.errors import ModelError
from specbench.law import OWN
from specbench.models.caption_features import CaptionFeatures
from specbench.models.image import Rows, check_rows
from specbench.models.state import State


class ClassRows:
    """The rows of a class-conditional model: the class, and the null class.

    Args:
        codes: K; class k is token K + k.
        classes: Number of classes; the null class comes behind the last.
    """

    longest = 0

    def __init__(self, codes: int, classes: int) -> None:
        self._codes = codes
        self._classes = classes

    def encode(self, caption: str) -> list[int]:
        """Return the token of a class that is given as decimal text.

        Raises:
            ModelError: If the text is not a class.
        """
        text = caption.strip()
        if not (text.isascii() and text.isdecimal()) or int(text) >= self._classes:
            raise ModelError(
                f"'{caption}' is not a class of this model",
                f"it draws the classes 0 to {self._classes - 1}",
                "Use a task whose prompts are class ids, such as task=imagenet_c2i.",
            )
        return [self._codes + int(text)]

    def rows(self, prompt: Sequence[int], count: int, unconditional: str = OWN) -> Rows:
        """Return the rows of a class.

        Raises:
            ModelError: If other rows are asked for.
        """
        check_rows(count, unconditional)
        null = self._codes + self._classes
        tokens = [list(prompt), [null] * len(prompt)][:count]
        return Rows(torch.tensor(tokens), (0,) * count)


class CaptionRows:
    """The rows of a caption-conditional model: features of the caption, and learned ones.

    No token of a vocabulary stands for a feature. The decoder's table has N rows for the features
    of the caption at hand, which `rows` writes, and N for the learned ones of no caption. The
    unconditional row hides the same leading slots as the conditional one, as the release does.

    Args:
        features: Turns captions into features.
        embed: Maps features to the model's channels.
        table: [K + 2 N, C], the decoder's embedding.
        codes: K.
        slots: N.
    """

    longest = 0

    def __init__(
        self,
        features: CaptionFeatures,
        embed: CaptionEmbedding,
        table: Tensor,
        codes: int,
        slots: int,
    ) -> None:
        self._features = features
        self._embed = embed
        self._table = table
        self._codes = codes
        self._slots = slots
        self._tokens = codes + torch.arange(2 * slots).view(2, slots)

    def encode(self, caption: str) -> list[int]:
        """Return N port ids of a caption: K + its text tokens behind padding."""
        ids = self._features.tokens(caption, self._slots)
        self._features.of(tuple(ids))
        padding = [self._features.pad] * (self._slots - len(ids))
        return [self._codes + token for token in (*padding, *ids)]

    @torch.inference_mode()
    def rows(self, prompt: Sequence[int], count: int, unconditional: str = OWN) -> Rows:
        """Write the features of a prompt into the table and return the rows that read them.

        Raises:
            ModelError: If other rows are asked for.
        """
        check_rows(count, unconditional)
        assert len(prompt) == self._slots
        ids = [token - self._codes for token in prompt]
        hidden = next(index for index, token in enumerate(ids) if token != self._features.pad)
        first = self._codes + hidden
        embedded = self._embed(self._features.of(tuple(ids[hidden:])))
        self._table[first : self._codes + self._slots] = embedded
        return Rows(self._tokens[:count], (hidden,) * count)


class CaptionEmbedding:
    """The two-layer map from caption features to the model's channels (`cap_proj`).

    Args:
        state: The model's weights.
        device: Where to compute.
        dtype: Compute dtype.
    """

    def __init__(self, state: State, device: torch.device, dtype: torch.dtype) -> None:
        def layer(name: str) -> Tensor:
            return state[f"cls_embedding.cap_proj.{name}.weight"].to(device, dtype)

        self._first, self._second = layer("fc1"), layer("fc2")
        self.width: int = self._first.shape[1]

    def __call__(self, features: Tensor) -> Tensor:
        """Map [T, E] to [T, C]."""
        return F.linear(F.gelu(F.linear(features, self._first), approximate="tanh"), self._second)
