"""A suffix array over a tokenised text: every occurrence of any stretch, found by bisection.

The array is built by libdivsufsort, which sorts the suffixes of bytes. Tokens are ranked, each
rank written with as many big-endian bytes as the alphabet needs, and only the suffixes that
begin at a token are kept: they are in the order of the tokens. Building takes 5 bytes of memory
for each of these bytes (9 from 2 GiB of them); reading takes none beyond what the system caches.

Shapes: N tokens, ends of documents included; R continuations of L tokens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specbench.datastore.format import END_OF_DOCUMENT, Metadata, read_metadata
from specbench.datastore.prefix_tree import Tokens
from specbench.datastore.tokens import STORED, MappedTokens, rows_at

_ORDER = {np.dtype(np.uint32): "order.u32", np.dtype(np.uint64): "order.u64"}
_CHUNK = 1 << 22
_WIDTH = STORED.itemsize
_RANKED = 1 << 24
"""Largest id up to which ranks are looked up in a table; larger ones are sorted as they are."""

_SHORT_INDEX = 1 << 31
"""Bytes from which libdivsufsort needs 64-bit positions."""


class Match(NamedTuple):
    """The longest suffix of a text that occurs in the datastore.

    Attributes:
        length: Its number of tokens.
        start: First of its occurrences in the sorted order.
        stop: One past the last of them.
    """

    length: int
    start: int
    stop: int


class SuffixDatastore:
    """A datastore of kind "suffix", mapped.

    Raises:
        ConfigError: If the folder holds no such datastore.
    """

    def __init__(self, folder: Path) -> None:
        self.metadata: Metadata = read_metadata(folder, "suffix")
        self._text = MappedTokens(folder)
        wide = (folder / _ORDER[np.dtype(np.uint64)]).exists()
        kind = np.dtype(np.uint64 if wide else np.uint32)
        # A plain view of the map: an entry is read without making an array of it.
        self._order_array: npt.NDArray[np.unsignedinteger] = np.memmap(
            folder / _ORDER[kind], kind, "r"
        )
        self._order = self._order_array.data.cast("B").cast("Q" if wide else "I")

    def longest_match(self, text: Sequence[int], shortest: int, longest: int) -> Match | None:
        """Find the longest suffix of `text` that occurs, or None.

        A stretch that occurs holds only stretches that occur, so the length is bisected too:
        about four searches instead of one for every length.
        """
        pattern = np.asarray(text[-longest:], dtype=STORED).tobytes()
        low, high = shortest, len(pattern) // _WIDTH
        best: Match | None = None
        while low <= high:
            length = (low + high + 1) // 2
            start = self._first(pattern[-_WIDTH * length :])
            if start is None:
                high = length - 1
            else:
                best = Match(length, start, start + 1)
                low = length + 1
        if best is None:
            return None
        wanted = pattern[-_WIDTH * best.length :]
        stop = bisect_right(self._order, wanted, best.start, key=self._reader(len(wanted)))
        return best._replace(stop=stop)

    def continuations(self, match: Match, count: int, length: int) -> Tokens:
        """Return what follows the occurrences of a match, [R, L], in lexicographic order.

        Where there are more than `count` occurrences, evenly spaced ones of the sorted order are
        taken, so that no token is favoured for its id. After the end of a document a row holds
        `END_OF_DOCUMENT` and then anything.
        """
        found = match.stop - match.start
        taken = min(found, count)
        places = match.start + np.arange(taken, dtype=np.int64) * found // taken
        after = self._order_array[places].astype(np.int64) + match.length
        return rows_at(self._text.array, after, length)

    def stretches(self, length: int) -> Iterator[Tokens]:
        """Yield the `length` tokens from every place of the text on, sorted, a chunk at a time.

        A stretch that passes the end of a document holds `END_OF_DOCUMENT` there.
        """
        for start in range(0, len(self._order_array), _CHUNK):
            places = self._order_array[start : start + _CHUNK].astype(np.int64)
            yield rows_at(self._text.array, places, length)

    def _first(self, wanted: bytes) -> int | None:
        """Return the first place in the sorted order of a suffix that begins with `wanted`."""
        read = self._reader(len(wanted))
        place = bisect_left(self._order, wanted, key=read)
        found = place < len(self._order) and read(self._order[place]) == wanted
        return place if found else None

    def _reader(self, width: int) -> Callable[[int], bytes]:
        """Return what reads the first `width` bytes of a suffix."""
        raw = self._text.raw
        return lambda position: raw[position * _WIDTH : position * _WIDTH + width]


def build_order(folder: Path) -> None:
    """Sort the suffixes of the token file of a folder, and write their order beside it.

    Raises:
        MemoryError: If sorting does not fit into memory.
    """
    from pydivsufsort import divsufsort  # type: ignore[import-untyped, unused-ignore]

    tokens = MappedTokens(folder).array
    text, width = _as_bytes(tokens)
    order = divsufsort(text, force64=len(text) >= _SHORT_INDEX)
    kind = np.dtype(np.uint32 if len(tokens) < 2**32 else np.uint64)
    with (folder / _ORDER[kind]).open("wb") as file:
        for start in range(0, len(order), _CHUNK):
            part = order[start : start + _CHUNK]
            part = part[part % width == 0] // width if width > 1 else part
            file.write(part.astype(kind).tobytes())


def sorting_bytes(tokens: int, largest_token: int) -> int:
    """Return about how many bytes of memory `build_order` needs at most."""
    text = tokens * _bytes_for(largest_token + 2)
    return text * (5 if text < _SHORT_INDEX else 9)


def _ranks(tokens: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint32] | None:
    """Return the rank of every id that occurs, by id; the end of a document comes last.

    None where the ids are too large for a table.
    """
    largest = 0
    for start in range(0, len(tokens), _CHUNK):
        part = tokens[start : start + _CHUNK]
        inside = part[part != END_OF_DOCUMENT]
        largest = max(largest, int(inside.max()) if len(inside) else 0)
    if largest > _RANKED:
        return None
    used = np.zeros(largest + 2, dtype=bool)
    for start in range(0, len(tokens), _CHUNK):
        used[np.minimum(tokens[start : start + _CHUNK], largest + 1)] = True
    ranks: npt.NDArray[np.uint32] = (np.cumsum(used) - 1).astype(np.uint32)
    return ranks


def _bytes_for(symbols: int) -> int:
    return max(1, (max(symbols - 1, 1).bit_length() + 7) // 8)


def _as_bytes(
    tokens: npt.NDArray[np.unsignedinteger],
) -> tuple[npt.NDArray[np.uint8], int]:
    """Return the ranks of all tokens as big-endian bytes, and the bytes of each."""
    ranks = _ranks(tokens)
    width = _WIDTH if ranks is None else _bytes_for(int(ranks[-1]) + 1)
    text = np.empty((len(tokens), width), dtype=np.uint8)
    for start in range(0, len(tokens), _CHUNK):
        part = tokens[start : start + _CHUNK]
        if ranks is not None:
            part = ranks[np.minimum(part, len(ranks) - 1)]
        stored = part.astype(STORED).view(np.uint8).reshape(-1, _WIDTH)
        text[start : start + _CHUNK] = stored[:, -width:]
    return text.reshape(-1), width
