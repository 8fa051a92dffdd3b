"""One vocabulary of words and picture codes, and the order of a sequence.

The order is that of the Chameleon family (Lumina-mGPT: a caption, begin of image, the size, rows of
codes that each end in an end-of-line token, end of image, end of text), so that the adapter of the
published models serves this one:

    <begin> caption words <separator> <image> <size> <size>
    12 x (12 codes <row>) </image> <end>

A row without a caption begins at `<image>`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from specbench.zoo.pictures.scene import SIZE, vocabulary

SIDE = SIZE // 4
"""Codes of a row, and rows of a picture."""

CODES = 512
PAD, BEGIN, END, SEPARATOR, FIRST_CODE = range(5)
IMAGE_BEGIN, IMAGE_END, ROW_END, SIZE_TOKEN = range(FIRST_CODE + CODES, FIRST_CODE + CODES + 4)
UNCONDITIONAL = (IMAGE_BEGIN, SIZE_TOKEN, SIZE_TOKEN)
"""The prompt of a picture of nothing in particular."""

GRID_TOKENS = SIDE * (SIDE + 1) + 2
"""Tokens behind a prompt, forced ones included."""

UNKNOWN = "<unknown>"
_LEADING = ("<pad>", "<begin>", "<end>", "<separator>")
_STRUCTURE = ("<image>", "</image>", "<row>", f"<size_{SIZE}>")


def names() -> list[str]:
    """Return the name of every token, in the order of the ids."""
    codes = [f"<code_{code}>" for code in range(CODES)]
    return [*_LEADING, *codes, *_STRUCTURE, *vocabulary(), UNKNOWN]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token per word of a caption, a token of its own for the unknown."""
    ids = {name: index for index, name in enumerate(names())}
    words = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=_LEADING[PAD],
        bos_token=_LEADING[BEGIN],
        eos_token=_LEADING[END],
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save_pretrained(folder)


def prompts(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> list[list[int]]:
    """Return the tokens of each prompt, up to the token before the first code."""
    words = tokenizer(captions, add_special_tokens=False)["input_ids"]
    return [[BEGIN, *row, SEPARATOR, *UNCONDITIONAL] for row in words]


def grid_tokens(ids: Tensor) -> Tensor:
    """Return the tokens behind a prompt, [B, GRID_TOKENS], for codes [B, SIDE, SIDE]."""
    rows = torch.nn.functional.pad(ids + FIRST_CODE, (0, 1), value=ROW_END).flatten(1)
    ending = torch.tensor([IMAGE_END, END]).expand(len(rows), 2)
    return torch.cat([rows, ending], 1)


def grid_codes(tokens: Tensor) -> Tensor:
    """Return the codes, [B, SIDE, SIDE], of the tokens behind a prompt, [B, GRID_TOKENS]."""
    rows = tokens[:, : SIDE * (SIDE + 1)].unflatten(1, (SIDE, SIDE + 1))
    return rows[:, :, :SIDE] - FIRST_CODE
