"""The pictures' side of an image model: the grid that its tokens fill, prompts and pixels.

Visual autoregressive models write a picture as a sequence of codebook indices in raster order,
some with a token at the end of every row. `Grid` says which of the generated tokens are codes and
which are forced; an `ImageSide` knows how a caption becomes a prompt and how codes become pixels.

Shapes: R conditioning rows, P prompt tokens, K codes, D code width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from specbench.errors import ModelError
from specbench.law import OWN
from specbench.schema.group import Group, Whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
else:
    Pixels = Any

CODE = -1
"""Stands in `Grid.forced` where a code is free."""

TEXT = -2
"""Stands in `Grid.forced` where a text token is free."""

SPACES = ("rows", "codebook", "embeddings")
"""Where the distance of two codes can be measured: between the image tokenizer's stored rows,
between these as its decoder reads them (LlamaGen and Janus give each the length one), or between
the target's input embeddings."""


TokenId = Annotated[Whole, Field(ge=0)]


@dataclass(frozen=True)
class Grid(Group):
    """The tokens that are generated behind the prompt of an image model.

    Attributes:
        rows: Rows of codes.
        columns: Codes in a row.
        row_end: Token that is forced behind every row, or None.
        ending: Tokens that are forced behind the last row.
        text: Free text tokens before the first row, for models that write before they draw.
    """

    key_path = "model.loader.grid"

    rows: Annotated[Whole, Field(ge=1)]
    columns: Annotated[Whole, Field(ge=1)]
    row_end: TokenId | None = None
    ending: Annotated[tuple[TokenId, ...], Field(description="a list of token ids")] = ()
    text: Annotated[Whole, Field(ge=0)] = 0

    @property
    def width(self) -> int:
        """Tokens in a row, its end included."""
        return self.columns + (self.row_end is not None)

    @property
    def length(self) -> int:
        """Generated tokens of one picture."""
        return self.text + self.rows * self.width + len(self.ending)

    @cached_property
    def forced(self) -> tuple[int, ...]:
        """For each generated token: the forced id, or `CODE`, or `TEXT`."""
        row = (CODE,) * self.columns + (() if self.row_end is None else (self.row_end,))
        return (TEXT,) * self.text + row * self.rows + self.ending

    def place(self, index: int) -> tuple[int, int]:
        """Return row and column of a generated token; the row's end has column `columns`."""
        return divmod(index - self.text, self.width)

    def index(self, row: int, column: int) -> int:
        """Return which generated token stands at a place."""
        return self.text + row * self.width + column

    def codes(self, tokens: Sequence[int]) -> list[int]:
        """Return the code tokens among generated ones, in raster order."""
        pairs = zip(tokens, self.forced, strict=False)
        return [token for token, forced in pairs if forced == CODE]


class Rows(NamedTuple):
    """The prompts of all conditioning rows, brought to one length.

    Attributes:
        tokens: [R, P] int64; row 0 is the conditional one, the last the unconditional one.
        padding: Leading slots of each row that nobody may see.
    """

    tokens: Tensor
    padding: tuple[int, ...]


class ImageSide(Protocol):
    """What tasks, metrics and image methods may know of an image model.

    Attributes:
        grid: The generated tokens.
        first_code: Token id of code 0; the codes are contiguous.
        codes: K.
        can_draw: Whether the pixel decoder is there.
    """

    grid: Grid
    first_code: int
    codes: int
    can_draw: bool

    def vectors(self, space: str) -> Tensor:
        """Return a vector for each code, in the order of token ids, [K, D].

        Args:
            space: One of `SPACES`.

        Raises:
            ModelError: If the weights that hold them are missing.
        """

    def encode(self, prompt: str) -> list[int]:
        """Return the conditional row's prompt, up to the token before the first generated one.

        Args:
            prompt: A caption, or a class id as decimal text for class-conditional models.

        Raises:
            SpecbenchError: If the prompt cannot be one of this model.
        """

    def pixels(self, tokens: Sequence[int]) -> Pixels:
        """Return [H, W, 3] from generated tokens; codes that are missing are code 0.

        Raises:
            ModelError: If the pixel decoder's weights are missing.
        """


class Conditioning(Protocol):
    """How an image model makes its conditioning rows.

    Attributes:
        longest: Tokens of the longest row that does not come from the request's prompt.
    """

    longest: int

    def rows(self, prompt: Sequence[int], count: int, unconditional: str = OWN) -> Rows:
        """Return the rows of a prompt: conditional, (image-conditional,) unconditional.

        Args:
            prompt: The conditional row.
            count: R, 1 to 3.
            unconditional: Which unconditional row (`schema.config.UNCONDITIONAL`).

        Raises:
            ModelError: If the model has no such rows.
        """


def check_rows(count: int, unconditional: str) -> None:
    """Refuse rows that a family of two fixed ones lacks.

    Raises:
        ModelError: If more than two rows are asked for, or another unconditional one.
    """
    if count > 2:
        raise ModelError(
            "This model mixes two conditioning rows, not three",
            "it has a conditional and an unconditional row, and none for a picture alone",
            "Remove sampling.image_scale.",
        )
    if unconditional != OWN:
        raise ModelError(
            f"This model has no unconditional row '{unconditional}'",
            "it has the one that its authors trained",
            "Remove sampling.unconditional.",
        )
