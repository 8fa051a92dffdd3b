"""Columns of measurements as arrays, with numbers in the place of names.

A comparison of hundreds of files groups and pairs millions of measurements. Text is held as
numbers of names, so that no step works on text and an arm is a list of places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.generic]

_LARGEST = 2**62


@dataclass(frozen=True)
class Table:
    """Measurements, one place each.

    Attributes:
        frame: The same as a DataFrame, indexed by a unique id; text columns may be categorical.
        arrays: Numbers as they are, text as the number of its name, -1 where there is none.
        names: The names of each text column.
    """

    frame: pd.DataFrame
    arrays: Mapping[str, Array]
    names: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Table:
        """Number the names of a DataFrame's text columns."""
        arrays: dict[str, Array] = {"": frame.index.to_numpy()}
        names: dict[str, tuple[str, ...]] = {}
        for name, column in frame.items():
            if isinstance(column.dtype, pd.CategoricalDtype):
                arrays[str(name)] = column.cat.codes.to_numpy()
                names[str(name)] = tuple(column.cat.categories)
            elif isinstance(column.dtype, pd.StringDtype):
                codes, found = pd.factorize(column)
                arrays[str(name)] = codes
                names[str(name)] = tuple(str(value) for value in found)
            else:
                arrays[str(name)] = column.to_numpy()
        return cls(frame, arrays, names)

    def __len__(self) -> int:
        """Return the number of measurements."""
        return len(self.frame)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The id of each measurement."""
        return np.asarray(self.arrays[""], dtype=np.int64)

    def code(self, column: str, name: str) -> int:
        """Return the number of a name, -2 where the column does not have it."""
        names = self.names[column]
        return names.index(name) if name in names else -2

    def codes(self, column: str) -> NDArray[np.int64]:
        """Return whole numbers that are equal where a column's values are."""
        values = self.arrays[column]
        if column in self.names:
            return values.astype(np.int64) + 1
        return values if values.dtype == np.int64 else values.astype(np.int64)  # type: ignore[return-value]

    def together(self, *columns: str) -> NDArray[np.int64]:
        """Number the combinations of some columns from 0, in the order first seen."""
        return codes_of(self.codes(name) for name in columns)

    def with_columns(self, further: Mapping[str, Array]) -> Table:
        """Return the table with more columns of numbers."""
        return Table(self.frame, {**self.arrays, **further}, self.names)

    def without(self, left_out: NDArray[np.bool_]) -> Table:
        """Return the table without some measurements; the others keep their ids."""
        arrays = {name: array[~left_out] for name, array in self.arrays.items()}
        return Table(self.frame[~left_out], arrays, self.names)


def codes_of(columns: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Number the different combinations of some columns from 0, in the order first seen."""
    joined: NDArray[np.int64] | None = None
    for column in columns:
        low, high = int(column.min(initial=_LARGEST)), int(column.max(initial=-_LARGEST))
        if low >= high:
            joined = np.zeros(len(column), dtype=np.int64) if joined is None else joined
            continue
        if joined is None:
            joined = pd.factorize(column)[0]
            continue
        if (high - low + 1) * (int(joined.max(initial=0)) + 1) >= _LARGEST:
            column, low = pd.factorize(column)[0], 0
            high = int(column.max(initial=0))
        joined = pd.factorize(joined * (high - low + 1) + (column - low))[0]
    assert joined is not None
    return joined
