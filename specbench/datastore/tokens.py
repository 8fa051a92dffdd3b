"""The token file: written in one pass, read through a memory map.

Shapes: N ids in the file, ends of documents included.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from specbench.datastore.format import END_OF_DOCUMENT, TOKENS

STORED = np.dtype(">u4")
"""How an id is stored."""

_END = np.array([END_OF_DOCUMENT], STORED).tobytes()


class TokenWriter:
    """Appends token ids to the token file of a folder that is being built.

    Attributes:
        tokens: Ids written so far, ends of documents left out.
        documents: Documents closed so far.
        largest_token: The largest id so far; -1 before the first.
    """

    def __init__(self, folder: Path) -> None:
        self.tokens = 0
        self.documents = 0
        self.largest_token = -1
        self._open = False
        self._file: IO[bytes] = (folder / TOKENS).open("wb")

    def add(self, ids: Sequence[int], *, last: bool) -> None:
        """Append ids to the current document.

        Args:
            ids: Token ids.
            last: Whether the document ends with them. A document without tokens is left out.
        """
        if ids:
            stored = np.asarray(ids, dtype=STORED)
            self._file.write(stored.tobytes())
            self.tokens += len(ids)
            self.largest_token = max(self.largest_token, int(stored.max()))
            self._open = True
        if last and self._open:
            self._file.write(_END)
            self.documents += 1
            self._open = False

    def close(self) -> None:
        """Close the last document and the file."""
        self.add((), last=True)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class MappedTokens:
    """The token file of a datastore in memory, which the system pages in where it is read.

    Attributes:
        raw: The bytes; slices of it are copies.
        array: [N] the ids, as a view of the map.
    """

    def __init__(self, folder: Path) -> None:
        with (folder / TOKENS).open("rb") as file:
            self.raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            self.raw.madvise(mmap.MADV_RANDOM)
        self.array: npt.NDArray[np.unsignedinteger] = np.frombuffer(self.raw, dtype=STORED)


def rows_at(
    text: npt.NDArray[np.unsignedinteger], places: npt.NDArray[np.int64], length: int
) -> npt.NDArray[np.uint32]:
    """Return the `length` ids from each place on, [R, length].

    Args:
        text: [N] the ids of a token file.
        places: [R] where each row begins; past the last id a row repeats the end of a document.
        length: L.
    """
    if len(places) == 0 or places.max() <= len(text) - length:
        return np.lib.stride_tricks.sliding_window_view(text, length)[places].astype(np.uint32)
    cells = np.minimum(places[:, None] + np.arange(length), len(text) - 1)
    rows: npt.NDArray[np.uint32] = text[cells].astype(np.uint32)
    return rows
