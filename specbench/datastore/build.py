"""From documents to a finished folder.

The caller brings the text and a function that turns texts into ids; this module writes, sorts
and names. A folder appears under its name only when it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial as partial_of
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from specbench.datastore.dense import States, write_states
from specbench.datastore.documents import Piece
from specbench.datastore.format import Metadata, SourceText, new_folder, write_metadata
from specbench.datastore.suffix import build_order, sorting_bytes
from specbench.datastore.tokens import TokenWriter
from specbench.errors import UsageError

Encode = Callable[[list[str]], list[list[int]]]
"""Turns texts into token ids, without the tokens that a tokenizer adds around a text."""

StatesOf = Callable[[Path], Iterator[States]]
"""Yields the hidden states of the token file in a folder; the same whenever it is called."""

_BATCH = 256


class Text(NamedTuple):
    """One source of documents.

    Attributes:
        name: What it is called in the datastore's metadata.
        digest: What identifies its content.
        pieces: Its documents.
    """

    name: str
    digest: str
    pieces: Iterable[Piece]


@dataclass(frozen=True)
class Tokenizer:
    """How texts become ids.

    Attributes:
        encode: The function.
        digest: Digest of its vocabulary.
        source: Where it was read.
    """

    encode: Encode
    digest: str
    source: str


@dataclass(frozen=True)
class DenseOptions:
    """What a dense datastore needs beyond text.

    Attributes:
        states: Computes the hidden states of the written token file.
        model: Digest of the weights that compute them.
        dimensions: Components to keep; the authors keep 64.
        fit_on: States that the projection is fitted on; the authors take a million.
    """

    states: StatesOf
    model: str
    dimensions: int = 64
    fit_on: int = 1_000_000


def build(
    folder: Path,
    texts: Iterable[Text],
    tokenizer: Tokenizer,
    *,
    dense: DenseOptions | None = None,
    limit: int | None = None,
    free_bytes: int | None = None,
    shared: bool = False,
    report: Callable[[str, int], None] = lambda stage, tokens: None,
) -> Metadata:
    """Build a datastore.

    Args:
        folder: Where; it must not exist.
        texts: What from.
        tokenizer: How texts become ids.
        dense: Makes a datastore of kind "dense"; None makes one of kind "suffix".
        limit: Stop after the document in which so many tokens are reached; None takes all.
        free_bytes: Memory that sorting may use, or None where it is not known.
        shared: Whether another process may build the same folder meanwhile.
        report: Called with what is being done and the tokens written so far.

    Raises:
        UsageError: If there is no text, no memory to sort it, or the folder cannot be written.
    """
    with new_folder(folder, shared=shared) as partial:
        writer = TokenWriter(partial)
        sources = []
        for text in texts:
            before = writer.documents
            _encode(writer, text.pieces, tokenizer.encode, limit, report)
            sources.append(SourceText(text.name, text.digest, writer.documents - before))
            if limit is not None and writer.tokens >= limit:
                break
        writer.close()
        if writer.tokens == 0:
            raise UsageError(
                "There is no text to build a datastore from",
                "the files hold no token",
                "Give files with text.",
            )
        metadata = Metadata(
            kind="suffix",
            tokenizer=tokenizer.digest,
            tokenizer_source=tokenizer.source,
            tokens=writer.tokens,
            documents=writer.documents,
            largest_token=writer.largest_token,
            sources=tuple(sources),
        )
        if dense is None:
            stored = writer.tokens + writer.documents
            _check_memory(sorting_bytes(stored, writer.largest_token), free_bytes)
            report("sorting", writer.tokens)
            build_order(partial)
        else:
            report("computing hidden states", writer.tokens)
            states = partial_of(dense.states, partial)
            metadata = replace(
                metadata,
                kind="dense",
                model=dense.model,
                states=write_states(partial, states, dense.dimensions, dense.fit_on),
                dimensions=dense.dimensions,
            )
        write_metadata(partial, metadata)
    return metadata


def _encode(
    writer: TokenWriter,
    pieces: Iterable[Piece],
    encode: Encode,
    limit: int | None,
    report: Callable[[str, int], None],
) -> None:
    remaining = iter(pieces)
    while batch := list(islice(remaining, _BATCH)):
        for piece, ids in zip(batch, encode([piece.text for piece in batch]), strict=True):
            writer.add(ids, last=piece.last)
            if limit is not None and piece.last and writer.tokens >= limit:
                return
        report("tokenising", writer.tokens)


def _check_memory(need: int, free: int | None) -> None:
    if free is not None and need > free:
        raise UsageError(
            "The suffixes cannot be sorted in this machine's memory",
            f"sorting takes about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            "Build from less text with --limit TOKENS, or on a larger machine.",
        )
