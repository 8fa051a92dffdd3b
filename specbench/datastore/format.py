"""What lies in a datastore's folder, and what its `meta.json` says.

    meta.json       what it was built from, and for which tokenizer
    tokens.u32      token ids, big-endian uint32, each document closed by `END_OF_DOCUMENT`
    order.u32       kind "suffix": positions of the suffixes in sorted order, native uint32
                    (order.u64 from 2**32 tokens)
    states.usearch  kind "dense": the graph of the stored hidden states
    projection.npz  kind "dense": how a hidden state becomes a stored vector

Ids are stored big-endian so that the bytes of a stretch of text compare as its tokens do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from specbench.bounded import read_text
from specbench.errors import ConfigError, UsageError

FORMAT = 1
"""Moves when a folder of an older version can no longer be read."""

KINDS = ("suffix", "dense")
END_OF_DOCUMENT = 0xFFFFFFFF
TOKENS = "tokens.u32"
_META = "meta.json"


@dataclass(frozen=True)
class SourceText:
    """A file that a datastore was built from.

    Attributes:
        name: The file's name.
        digest: SHA-256 of its bytes, or what else identifies the text.
        documents: Documents that were read from it.
    """

    name: str
    digest: str
    documents: int


@dataclass(frozen=True)
class Metadata:
    """What a datastore is.

    Attributes:
        kind: "suffix" or "dense".
        tokenizer: Digest of the vocabulary that the ids belong to; see `vocabulary_digest`.
        tokenizer_source: Where that tokenizer was read.
        tokens: Number of token ids, ends of documents left out.
        documents: Number of documents.
        largest_token: The largest id.
        sources: The files.
        model: Kind "dense": digest of the weights that computed the states; else empty.
        states: Kind "dense": number of stored states.
        dimensions: Kind "dense": width of a stored vector.
    """

    kind: str
    tokenizer: str
    tokenizer_source: str
    tokens: int
    documents: int
    largest_token: int
    sources: tuple[SourceText, ...]
    model: str = ""
    states: int = 0
    dimensions: int = 0

    def digest(self) -> str:
        """Return a hash of all this, which changes with the texts that were stored."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def vocabulary_digest(vocabulary: Mapping[str, int]) -> str:
    """Return what identifies the meaning of token ids: a SHA-256 of every token with its id.

    Args:
        vocabulary: Token to id, as a tokenizer's `get_vocab` returns it.
    """
    pairs = sorted((index, token) for token, index in vocabulary.items())
    text = json.dumps(pairs, ensure_ascii=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def read_metadata(folder: Path, kind: str | None = None) -> Metadata:
    """Return what a datastore's folder says of itself.

    Args:
        folder: The folder.
        kind: The kind that is wanted, or None for any.

    Raises:
        ConfigError: If there is no datastore, it was not finished, or it is of another kind.
    """
    build = "Build one: specbench datastore build FILES... -o DIR --model MODEL."
    if not folder.is_dir():
        raise ConfigError(f"There is no datastore '{folder}'", "the folder does not exist", build)
    try:
        values = json.loads(read_text(folder / _META))
        version = values.pop("format")
        sources = tuple(SourceText(**entry) for entry in values.pop("sources"))
        metadata = Metadata(sources=sources, **values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"'{folder}' is not a datastore", f"its {_META} cannot be read: {error}", build
        ) from error
    if version != FORMAT:
        raise ConfigError(
            f"'{folder}' has format {version}",
            f"this version of specbench reads format {FORMAT}",
            "Build it again from its sources: specbench datastore info DIR names them.",
        )
    if kind is not None and metadata.kind != kind:
        raise ConfigError(
            f"'{folder}' is a datastore of kind {metadata.kind}",
            f"the method looks up a datastore of kind {kind}",
            f"Build one: specbench datastore build FILES... -o DIR --model MODEL --kind {kind}.",
        )
    return metadata


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Write `meta.json`; it is written last, so that a folder that holds one is whole."""
    text = json.dumps({"format": FORMAT, **asdict(metadata)}, indent=2, ensure_ascii=False)
    (folder / _META).write_text(text + "\n", encoding="utf-8")


@contextmanager
def new_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` if nothing is raised.

    Args:
        folder: The folder to make; it must not exist.
        shared: Whether another process may make the same folder meanwhile; the first one stays.

    Raises:
        UsageError: If it exists, or cannot be made.
    """
    if folder.exists() and not shared:
        raise UsageError(
            f"'{folder}' exists already",
            "a datastore is never overwritten",
            "Remove it, or choose another folder with -o DIR.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UsageError(
            f"Cannot write '{folder}'", error.strerror or str(error), "Choose another folder."
        ) from error
    try:
        yield partial
        partial.chmod(0o755)
        if not (shared and folder.exists()):
            try:
                os.replace(partial, folder)
            except OSError:
                if not (shared and folder.exists()):
                    raise
    except OSError as error:
        raise UsageError(
            f"Cannot write '{folder}'",
            error.strerror or str(error),
            "Free some space, or choose another folder with -o DIR.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
