"""A method as one set of files measured it, ready to be held against another set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from specbench.compare.measurements import Measurements
from specbench.compare.pool import Pairs, Pool, identity_of, pair
from specbench.schema.result import METHOD, MethodInfo
from specbench.store import ResultSet

SAMPLE = ["task", "sample_id"]
"""Columns that name a sample."""


class Arms(NamedTuple):
    """Rows of both arms, line by line of one sample, repeat and process.

    Attributes:
        baseline: The baseline's; the method's own where there is none.
        method: The method's.
        samples: The sample of each line, as plain text.
    """

    baseline: pd.DataFrame
    method: pd.DataFrame
    samples: pd.MultiIndex

    def of(self, samples: pd.MultiIndex) -> Arms:
        """Return the lines of some samples."""
        keep = np.asarray(self.samples.isin(samples))
        return Arms(self.baseline[keep], self.method[keep], self.samples[keep])


@dataclass(frozen=True)
class Subject:
    """A method as some files measured it.

    Attributes:
        label: The method's id with whatever tells it from its likes.
        pool: Everything that was measured of it.
        files: The files.
    """

    label: str
    pool: Pool
    files: tuple[ResultSet, ...]

    @property
    def info(self) -> MethodInfo:
        """What the method says about itself."""
        return self.pool.method

    @property
    def paired(self) -> bool:
        """Whether a baseline was measured beside it."""
        return self.pool.baseline is not None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Id, parameters, parts and draft: what makes two files runs of one method."""
        return identity_of(self.files[0])

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The identity without the method's parts, which a change of the program may change."""
        return {key: value for key, value in self.identity.items() if key != "decoder"}

    @property
    def described(self) -> str:
        """Id with every parameter, for where the method's likes are not at hand."""
        own = self.identity.get("parameters") or {}
        parts = ", ".join(f"{key}={value}" for key, value in own.items())
        return f"{self.info.name} ({parts})" if parts else self.info.name

    @property
    def measured(self) -> Measurements:
        """The method's measurements, those with a baseline's beside them where one was measured."""
        return self._pairs.method

    @cached_property
    def arms(self) -> Arms:
        """The successful measurements of both arms, matched."""
        pairs = self._pairs
        return Arms(pairs.baseline.rows, pairs.method.rows, sample_index(pairs.method.rows))

    @cached_property
    def samples(self) -> pd.MultiIndex:
        """The samples that succeeded in every arm."""
        return self.arms.samples.unique()

    @cached_property
    def _pairs(self) -> Pairs:
        if self.paired:
            return pair(self.pool)
        own = self.pool.arm(METHOD)
        return Pairs(own, own, 0)


def sample_index(rows: pd.DataFrame) -> pd.MultiIndex:
    """Return the sample of each row as plain text, whatever the columns are encoded as."""
    columns = [rows[name].astype(str).to_numpy(dtype=object) for name in SAMPLE]
    return pd.MultiIndex.from_arrays(columns, names=SAMPLE)
