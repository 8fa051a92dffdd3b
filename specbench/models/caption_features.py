"""Features of a caption from the encoder half of a T5 model.

LlamaGen's text-conditional models read the last hidden states of flan-t5-xl, made of at most 120
tokens of the cleaned caption (FoundationVision/LlamaGen, language/t5.py, itself after PixArt and
DeepFloyd IF).
"""

from __future__ import annotations

import html
import re
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from specbench.models import checkpoint as checkpoints
from specbench.models.checkpoint import Checkpoint
from specbench.models.pretrained import read_module, read_settings, read_tokenizer

REMEMBERED = 4096
"""Captions whose features are kept, so that no generation pays for the encoder."""

_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]+")
_DOUBLE_QUOTES = re.compile("[\u201c\u201d\u00ab\u00bb`\u00b4]")
_SINGLE_QUOTES = re.compile("[\u2018\u2019]")
_LINKS = re.compile(r"\b(?:https?:|www\.)\S+")
_TAGS = re.compile(r"<[^<>]*>")
_SIGNS = re.compile(
    r"[#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~()\[\]{}|\\/*]+"
)
_GLUED = re.compile(r"(\D[,./])\b")
_ENDS = re.compile(r"^['_,\-:;]|['_,\-:+]$")


def clean_caption(caption: str) -> str:
    """Return a caption as the text encoder saw captions in training.

    Lower case, one kind of dash and quote, no links, tags or ornaments, single blanks, a blank
    behind a comma, stop or slash that touches the next word, and no dangling mark at either end:
    the rules of the release that touch prose. Its rules for the debris of web pages (file and
    product names, addresses, ids, advertisements, Chinese characters) are left out.
    """
    text = html.unescape(caption).strip().lower()
    text = _TAGS.sub(" ", _LINKS.sub("", text))
    text = _SINGLE_QUOTES.sub("'", _DOUBLE_QUOTES.sub('"', _DASHES.sub("-", text)))
    text = _SIGNS.sub(" ", text)
    text = _GLUED.sub(r"\1 ", text)
    text = " ".join(text.split())
    return _ENDS.sub("", text).strip()


class CaptionFeatures:
    """A T5 encoder that remembers what it has read.

    Args:
        tokenizer: Its tokenizer.
        encoder: A transformers `T5EncoderModel` in eval mode.
        files: Where both come from.

    Attributes:
        width: E, of a feature.
        vocab_size: Number of text tokens.
        pad: The padding token, which no caption holds.
    """

    def __init__(self, tokenizer: Any, encoder: Any, files: Checkpoint) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._files = files
        self._seen: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self.width: int = encoder.config.d_model
        self.vocab_size: int = encoder.config.vocab_size
        self.pad: int = encoder.config.pad_token_id

    def tokens(self, caption: str, longest: int) -> list[int]:
        """Return the tokens of a caption, its end token included, at most `longest`."""
        ids: list[int] = self._tokenizer(
            clean_caption(caption), truncation=True, max_length=longest
        )["input_ids"]
        return ids

    @torch.inference_mode()
    def of(self, ids: tuple[int, ...]) -> Tensor:
        """Return the features [T, E] of the tokens [T] of one caption."""
        found = self._seen.pop(ids, None)
        if found is None:
            tokens = torch.tensor([ids], device=self._encoder.device)
            found = self._encoder(input_ids=tokens).last_hidden_state[0]
            while len(self._seen) >= REMEMBERED:
                self._seen.popitem(last=False)
        self._seen[ids] = found
        return found

    def describe(self) -> dict[str, Any]:
        """Return what a result file records of the encoder."""
        return checkpoints.describe(self._files)


def load_caption_features(
    source: str, revision: str | None, device: torch.device, dtype: torch.dtype
) -> CaptionFeatures:
    """Load a T5 encoder and its tokenizer.

    Args:
        source: Hub id or folder.
        revision: Hub revision.
        device: Where to compute.
        dtype: Compute dtype; the release has the generator's.

    Raises:
        ModelError: If they are missing or cannot be read.
    """
    files = checkpoints.find(source, revision)
    encoder = read_module(T5EncoderModel, files, read_settings(files, T5Config), dtype).module
    return CaptionFeatures(read_tokenizer(files), encoder.to(device), files)
