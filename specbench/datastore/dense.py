"""Nearest neighbours among the hidden states of a model, each with the text that followed it.

DReSD (Gritta, Xue, Lampouras 2025, arXiv:2502.15572): a state is whitened feature by feature
(z-score), projected on its first principal components and brought to unit length; neighbours by
cosine are approximate. The same `Projection` serves building and looking up, because it is
stored with the vectors. The authors' code (its `pca.py`, `embed_data.py`, `index.py` and
`DReSD.generate`) takes 64 components and 50 neighbours of ScaNN; here usearch's HNSW graph takes
ScaNN's place, since it can be looked up in a memory map.

Shapes: C width of a hidden state, D components, n states, R continuations of L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specbench.datastore.format import END_OF_DOCUMENT, Metadata, read_metadata
from specbench.datastore.prefix_tree import Tokens
from specbench.datastore.tokens import MappedTokens, rows_at

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_INDEX = "states.usearch"
_PROJECTION = "projection.npz"
_KEPT_BYTES = 1 << 30


class States(NamedTuple):
    """Hidden states, each with the place of the token that followed it.

    Attributes:
        positions: [n] place of that token in the token file.
        states: [n, C] the final hidden states that predicted it.
    """

    positions: Positions
    states: Floats


class Projection(NamedTuple):
    """How a hidden state becomes a stored vector.

    Attributes:
        mean: [C] mean of every feature.
        scale: [C] standard deviation of every feature; 1 where it is constant.
        components: [D, C] principal directions of the whitened features.
    """

    mean: Floats
    scale: Floats
    components: Floats

    @classmethod
    def fit(cls, chunks: Iterator[States], dimensions: int) -> Projection:
        """Fit `dimensions` components, at most C, on states in one pass."""
        count = 0
        total: npt.NDArray[np.float64] = np.zeros(())
        products: npt.NDArray[np.float64] = np.zeros(())
        for chunk in chunks:
            wide = chunk.states.astype(np.float64)
            count += len(wide)
            total = total + wide.sum(0)
            products = products + wide.T @ wide
        mean = total / count
        covariance = products / count - np.outer(mean, mean)
        variance = np.diagonal(covariance)
        constant = variance <= 1e-12 * max(float(variance.max()), 1e-300)
        scale = np.sqrt(np.where(constant, 1.0, variance))
        _, directions = np.linalg.eigh(covariance / np.outer(scale, scale))
        components = directions[:, ::-1].T[:dimensions]
        return cls(*(part.astype(np.float32) for part in (mean, scale, components)))

    def __call__(self, states: Floats) -> Floats:
        """Return the unit vectors, [n, D], of hidden states, [n, C]."""
        vectors = ((states - self.mean) / self.scale) @ self.components.T
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        unit: Floats = vectors / np.maximum(lengths, np.float32(1e-12))
        return unit


class DenseDatastore:
    """A datastore of kind "dense", mapped.

    Args:
        folder: Its folder.
        exact: Whether neighbours are searched one by one instead of in the graph.

    Raises:
        ConfigError: If the folder holds no such datastore.
    """

    def __init__(self, folder: Path, *, exact: bool = False) -> None:
        from usearch.index import Index

        self.metadata: Metadata = read_metadata(folder, "dense")
        self._exact = exact
        self._text = MappedTokens(folder).array
        self._index: Any = Index.restore(folder / _INDEX, view=True)
        with np.load(folder / _PROJECTION) as stored:
            self._projection = Projection(*(stored[name] for name in Projection._fields))

    @property
    def width(self) -> int:
        """Width C of the hidden states that it was built from."""
        return len(self._projection.mean)

    def neighbours(self, state: Floats, count: int) -> Positions:
        """Return the places after the states nearest to one, [C], nearest first, [n]."""
        vector = self._projection(state[None])[0]
        found = self._index.search(vector, count, exact=self._exact, threads=1)
        return np.asarray(found.keys, dtype=np.int64)

    def after(self, state: Floats, token: int, count: int, length: int) -> Tokens:
        """Return what followed the near states that were followed by `token`, nearest first.

        Args:
            state: [C] the hidden state that predicted `token`.
            token: The token that was emitted there.
            count: How many neighbours to look at.
            length: Tokens of a continuation, `token` itself left out.

        Returns:
            [R, length]; after the end of a document a row holds `END_OF_DOCUMENT` and then
            anything.
        """
        places = self.neighbours(state, count)
        places = places[self._text[places] == token]
        return rows_at(self._text, places + 1, length)


def write_states(
    folder: Path, chunks: Callable[[], Iterator[States]], dimensions: int, fit_on: int
) -> int:
    """Write the projection and the graph of states; return how many were stored.

    Args:
        folder: A folder that is being built; it holds the token file.
        chunks: Yields all states, the same whenever it is called.
        dimensions: Components to keep.
        fit_on: How many of the first states the projection is fitted on, about.
    """
    from usearch.index import Index

    read = _Replay(chunks, fit_on)
    projection = Projection.fit(read.head(), dimensions)
    np.savez(folder / _PROJECTION, **projection._asdict())
    # Cosine of unit vectors; one thread, so that the same text gives the same graph.
    index: Any = Index(ndim=len(projection.components), metric="ip", dtype="f16")
    for chunk in read.all():
        if len(chunk.positions):
            index.add(chunk.positions.astype(np.uint64), projection(chunk.states), threads=1)
    index.save(folder / _INDEX)
    return len(index)


def text_spans(folder: Path, longest: int) -> Iterator[tuple[int, Tokens]]:
    """Yield the documents of a token file, each with the place of its first token.

    One of more than `longest` tokens comes in stretches of so many.
    """
    tokens = MappedTokens(folder).array
    start = 0
    for stop in np.flatnonzero(tokens == END_OF_DOCUMENT).tolist():
        for first in range(start, stop, longest):
            yield first, tokens[first : min(first + longest, stop)].astype(np.uint32)
        start = stop + 1


class _Replay:
    """States that are read twice, and kept between where they are few."""

    def __init__(self, chunks: Callable[[], Iterator[States]], head: int) -> None:
        self._chunks = chunks
        self._wanted = head
        self._kept: list[States] | None = []

    def head(self) -> Iterator[States]:
        """Yield the first states."""
        taken = size = 0
        for chunk in self._chunks():
            if taken >= self._wanted:
                self._kept = None
                return
            yield chunk
            taken += len(chunk.positions)
            size += chunk.states.nbytes
            if size > _KEPT_BYTES:
                self._kept = None
            if self._kept is not None:
                self._kept.append(chunk)

    def all(self) -> Iterator[States]:
        """Yield all states."""
        return self._chunks() if self._kept is None else iter(self._kept)
