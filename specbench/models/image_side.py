"""Image models whose prompts are lists of ids and texts and whose codes are ids in one run.

What differs between the families of one vocabulary (Chameleon, Lumina-mGPT, Anole, Emu3) is data
and stands in their YAML files: the grid, the range of the codes, and how prompt and unconditional
row are put together. This module reads that data and answers from it; it knows no architecture.

Shapes: R conditioning rows, P prompt tokens, K codes, D code width, h x w codes, H x W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field, StrictStr
from pydantic.dataclasses import dataclass
from torch import Tensor

from specbench.errors import ModelError
from specbench.law import OWN
from specbench.models.image import Grid, Pixels, Rows, TokenId
from specbench.models.pixels import code_map, to_pixels
from specbench.schema.group import Group, Text, Whole, cannot_be

Parts = Annotated[
    tuple[StrictStr | TokenId, ...], Field(description="a list of token ids and texts")
]
"""A prompt: token ids, and texts that the tokenizer turns into ids."""

CAPTION = "{caption}"
"""Stands in a prompt's text where the caption goes."""


@dataclass(frozen=True)
class Layout(Group):
    """How a family writes a picture as tokens: the parameters of its loader.

    Attributes:
        grid: The generated tokens.
        first_code: Token id of the first code.
        codes: K.
        prompt: The conditional row, with `CAPTION` in one of its texts.
        unconditional: The row without the caption, up to the same token.
        image_conditional: The row that keeps a prompt's pictures and drops its text, for models
            that mix three rows; empty for others.
        padding: Token that stands for every one of the caption's in the unconditional row
            `padded`; None where no release makes one.
        image_tokenizer: Where the pixel decoder lies: a folder or a hub id; None for the
            checkpoint's own.
        image_tokenizer_revision: Hub revision of it, or None.
    """

    key_path = "model.loader"

    grid: Grid
    first_code: TokenId
    codes: Annotated[Whole, Field(ge=2)]
    prompt: Parts
    unconditional: Parts
    image_conditional: Parts = ()
    padding: TokenId | None = None
    image_tokenizer: Text | None = None
    image_tokenizer_revision: Text | None = None

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Let null stand for no image-conditional row."""
        return {**values, "image_conditional": values.get("image_conditional") or ()}

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Layout:
        """Read a loader's parameters.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        layout = cls.from_dict(options)
        for key in ("prompt", "unconditional"):
            if not getattr(layout, key):
                raise cannot_be(f"{cls.key_path}.{key}", [], "a list of token ids and texts")
        if sum(CAPTION in part for part in layout.prompt if isinstance(part, str)) != 1:
            allowed = f"a list of ids and texts, one of which holds {CAPTION}"
            raise cannot_be(f"{cls.key_path}.prompt", list(layout.prompt), allowed)
        return layout


class Prompts:
    """Turns captions into prompts and prompts into conditioning rows (`image.Conditioning`).

    Args:
        layout: How rows are put together.
        tokenizer: A transformers tokenizer.

    Attributes:
        longest: Tokens of the longest row that does not come from the caption.
    """

    def __init__(self, layout: Layout, tokenizer: Any) -> None:
        self._layout = layout
        self._tokenizer = tokenizer
        self._others = [self._ids(layout.unconditional)]
        if layout.image_conditional:
            self._others.insert(0, self._ids(layout.image_conditional))
        self.longest = max(map(len, self._others))

    def encode(self, caption: str) -> list[int]:
        """Return the conditional row of a caption, [P].

        Raises:
            ModelError: If a word-level tokenizer lacks a word, or the caption names codes.
        """
        parts = tuple(
            part.replace(CAPTION, caption) if isinstance(part, str) else part
            for part in self._layout.prompt
        )
        ids = self._ids(parts)
        first, count = self._layout.first_code, self._layout.codes
        if any(first <= token < first + count for token in ids):
            raise ModelError(
                f"The caption '{caption}' cannot be a prompt",
                "it holds the name of a token that stands for a piece of a picture",
                "Write the caption in plain words.",
            )
        return ids

    def rows(self, prompt: Sequence[int], count: int, unconditional: str = OWN) -> Rows:
        """Return the rows of a prompt: conditional, (image-conditional,) unconditional.

        Raises:
            ModelError: If three rows are asked of a model that mixes two, or an unconditional row
                that it lacks.
        """
        if count > 1 + len(self._others):
            raise ModelError(
                "This model mixes two conditioning rows, not three",
                "it was not trained to tell a picture in the prompt from the caption",
                "Remove sampling.image_scale.",
            )
        rows = [list(prompt), *self._others[len(self._others) + 1 - count :]]
        if count > 1:
            rows[-1] = self._unconditional(prompt, unconditional)
        width = max(map(len, rows))
        padding = tuple(width - len(row) for row in rows)
        tokens = [[0] * gap + row for gap, row in zip(padding, rows, strict=True)]
        return Rows(torch.tensor(tokens), padding)

    def _unconditional(self, prompt: Sequence[int], kind: str) -> list[int]:
        """Return an unconditional row: the model's own, or what releases make of the prompt."""
        own, padding = self._others[-1], self._layout.padding
        if kind == OWN:
            return own
        before = list(prompt[: -len(own)])
        if not before or list(prompt[-len(own) :]) != own:
            raise ModelError(
                f"This model has no unconditional row '{kind}'",
                "its own one is not the end of the prompt, so there is nothing to put before it",
                "Remove sampling.unconditional.",
            )
        if kind == "last_token":
            return [before[-1], *own]
        if padding is None:
            raise ModelError(
                f"This model has no unconditional row '{kind}'",
                "its entry names no padding token",
                "Set model.loader.padding, or remove sampling.unconditional.",
            )
        return [before[0], *[padding] * (len(before) - 1), *own]

    def _ids(self, parts: Parts) -> list[int]:
        ids: list[int] = []
        for part in parts:
            ids += self._words(part) if isinstance(part, str) else [part]
        return ids

    def _words(self, text: str) -> list[int]:
        tokenizer = self._tokenizer
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise ModelError(
                f"The caption '{text}' holds a word that the model does not know",
                "its vocabulary is a small list of words",
                "Use captions of the model's own world (specbench show task shapes --sample).",
            )
        return ids


@dataclasses.dataclass(frozen=True)
class PixelDecoder:
    """What is there of a family's image tokenizer.

    Attributes:
        codebook: [K, D] by the tokenizer's own numbers, or None.
        rows: [K, D] its stored rows, where the decoder reads something else; None where not.
        about: What a result file records of it where it is published apart; None where it belongs
            to the checkpoint.
        decode: Turns code numbers [1, h, w] into pixels [1, 3, H, W] in -1 to 1, or None.
        missing: Why something is None.
    """

    codebook: Tensor | None
    decode: Callable[[Tensor], Tensor] | None
    missing: ModelError | None = None
    rows: Tensor | None = None
    about: Mapping[str, Any] | None = None


class Captions(Protocol):
    """Turns a caption, or a class id as decimal text, into the conditional row's prompt."""

    def encode(self, caption: str) -> list[int]:
        """Return the prompt's token ids."""


class CodePictures:
    """The pictures' side of a model of one vocabulary (`image.ImageSide`).

    Args:
        layout: Grid and codes.
        prompts: Turns captions into prompts.
        decoder: The image tokenizer.
        embeddings: [K, C], the target's input embeddings of the codes.
        numbers: [K], the tokenizer's number of each code in the order of token ids; None where
            the orders agree.
        rounded: See `pixels.to_pixels`.

    Raises:
        ModelError: If the tokenizer's codebook is of another size than the entry says.
    """

    def __init__(
        self,
        layout: Layout,
        prompts: Captions,
        decoder: PixelDecoder,
        embeddings: Tensor,
        numbers: Tensor | None = None,
        *,
        rounded: bool = True,
    ) -> None:
        self.grid = layout.grid
        self.first_code = layout.first_code
        self.codes = layout.codes
        self.can_draw = decoder.decode is not None
        self._prompts = prompts
        self._decoder = decoder
        self._embeddings = embeddings
        self._vectors: dict[str, Tensor] = {}
        self._numbers = numbers
        self._rounded = rounded
        if decoder.codebook is not None and decoder.codebook.shape[0] != layout.codes:
            raise ModelError(
                "The image tokenizer belongs to another model",
                f"its codebook has {decoder.codebook.shape[0]} codes, the model {layout.codes}",
                "Name the tokenizer that the model was trained with: model.loader.image_tokenizer.",
            )

    def vectors(self, space: str) -> Tensor:
        """Return a vector for each code, [K, D]; see `image.ImageSide`.

        Raises:
            ModelError: If the image tokenizer is missing.
        """
        if space not in self._vectors:
            self._vectors[space] = self._find_vectors(space)
        return self._vectors[space]

    def _find_vectors(self, space: str) -> Tensor:
        if space == "embeddings":
            return self._embeddings
        codebook, rows = self._decoder.codebook, self._decoder.rows
        if codebook is None:
            raise self._missing()
        chosen = rows if space == "rows" and rows is not None else codebook
        if self._numbers is not None:
            chosen = chosen[self._numbers.to(chosen.device)]
        return chosen.float()

    def encode(self, prompt: str) -> list[int]:
        """Return the conditional row's prompt, up to the token before the first generated one."""
        return self._prompts.encode(prompt)

    def pixels(self, tokens: Sequence[int]) -> Pixels:
        """Return [H, W, 3] from generated tokens; codes that are missing are code 0.

        Raises:
            ModelError: If the pixel decoder's weights are missing.
        """
        decoder = self._decoder
        if decoder.decode is None or decoder.codebook is None:
            raise self._missing()
        codes = code_map(self.grid, self.first_code, tokens)
        if self._numbers is not None:
            codes = self._numbers[codes]
        decoded = decoder.decode(codes.to(decoder.codebook.device))
        return to_pixels(decoded, rounded=self._rounded)

    def _missing(self) -> ModelError:
        assert self._decoder.missing is not None
        return self._decoder.missing


def code_numbers(
    names: Mapping[str, int], layout: Layout, number: Callable[[str], int | None]
) -> Tensor | None:
    """Return the tokenizer's number of each code from the names of the tokens.

    Args:
        names: The vocabulary: token name to id.
        layout: The range of the codes.
        number: Reads a name; None for tokens that are no codes.

    Returns:
        [K], or None where names say nothing or the orders agree.

    Raises:
        ModelError: If the named codes are not those of the entry's range.
    """
    found = {index: value for name, index in names.items() if (value := number(name)) is not None}
    if not found:
        return None
    ids = range(layout.first_code, layout.first_code + layout.codes)
    if set(found) != set(ids) or set(found.values()) != set(range(layout.codes)):
        raise ModelError(
            "The checkpoint's codes are not where the model entry says",
            f"its tokenizer names {len(found)} codes, ids {min(found)} to {max(found)}; the entry "
            f"says {ids.start} to {ids.stop - 1}",
            "Correct model.loader.first_code and model.loader.codes.",
        )
    numbers = torch.tensor([found[index] for index in ids])
    return None if torch.equal(numbers, torch.arange(layout.codes)) else numbers
