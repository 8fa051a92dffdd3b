"""Fit a method's decoder to table models: what must be given by hand, what must be small.

A table has a handful of tokens, no text, no calibration and no datastore. `fitted` puts in what a
method could not run without; `shrunk` makes drafts so small that all outcomes can be enumerated;
`neutral` turns a lossy method's knob to where it promises the target's law. All three change
arguments inside of a `decoder` node by their names, whatever part they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from specbench.audit.grammar import TableGrammar
from specbench.datastore.build import DenseOptions, Text, Tokenizer, build
from specbench.datastore.documents import Piece
from specbench.models.pair import ModelPair
from specbench.zoo.datastore import states_of

Node = Mapping[str, Any]
Change = Callable[[str, str, Any], Any]
"""Maps a part's class name, an argument's name and its value to a new value."""

_OURS = "specbench."
_DATASTORE = "specbench.zoo.datastore.Datastore"

_BY_HAND: Mapping[tuple[str, str], Any] = {
    ("Sequoia", "acceptance"): [0.6, 0.2],
    ("OptimalTree", "accuracies"): [[0.5, 0.2, 0.1, 0.05]] * 5,
    ("SearchedSkip", "attention"): [1],
    ("SearchedSkip", "feed_forward"): [2],
    ("OracleCost", "cost_ratio"): 0.2,
}
"""What stands for a measurement: values for arguments that are null."""

_SMALL: Mapping[str, Any] = {
    "draft_length": 2,
    "max_length": 2,
    "nodes": 4,
    "depth": 2,
    "max_depth": 2,
    "beam": 2,
    "children": 2,
    "count": 2,
    "width": 2,
    "widths": [2, 1],
    "branching": [2, 1],
    "paths": [[0], [1], [0, 0]],
    "window": 3,
    "level": 3,
    "guesses": 2,
    "candidates": 2,
    "simulations": 4,
    "iterations": 2,
    "trials": 2,
    "rollout": 2,
    "draft_nodes": 3,
    "drafts": 2,
    "continuation": 2,
    "ngram_max": 2,
    "shortest": 1,
    "neighbours": 2,
    "low": 0.5,
    "ranks": 2,
}
"""Sizes for enumeration; a smaller number that is configured stays."""

_SMALL_OF: Mapping[tuple[str, str], Any] = {
    ("Eagle2Dynamic", "top_k"): 2,
    ("ZipAR", "window"): 1,
    ("SuffixDecoding", "max_depth"): 6,
    ("SuffixDecoding", "max_tokens"): 2,
    ("SuffixDecoding", "fallback_length"): 1,
    ("Swift", "window"): 2,
    ("Swift", "bayes_interval"): 0,
    ("TokenRecycling", "candidates"): 8,
    ("AdaptiveRejection", "particles"): 1,
}


@dataclass(frozen=True)
class Neutral:
    """Where a lossy method is none.

    Attributes:
        arguments: Values of the knob and of what belongs to it.
        promise: "exact", or "greedy" where the argmax alone is kept.
    """

    arguments: Mapping[str, Any]
    promise: str = "exact"

    def describe(self) -> str:
        """Return the values as they would be written."""
        words = {None: "null", math.inf: "inf"}
        return ", ".join(
            f"{key}={words.get(value, value)}" for key, value in self.arguments.items()
        )


NEUTRAL: Mapping[str, Neutral] = {
    "adadec": Neutral({"tau": math.inf}, "greedy"),
    "asap": Neutral({"grammar": None}),
    "awrs": Neutral({"grammar": None}),
    "beam": Neutral({"width": 1}, "greedy"),
    "bild": Neutral({"rollback": 0.0}),
    "cntp": Neutral({"trials": 1}),
    "contrastive_search": Neutral({"alpha": 0.0}, "greedy"),
    "cool_sd": Neutral({"delta": 1.0, "nu": 0.0}),
    "ead": Neutral({"tau": 0.0}),
    "gcd": Neutral({"grammar": None}),
    "gsd": Neutral({"ranks": 0}),
    "lantern": Neutral({"neighbours": 0}),
    "lantern_pp": Neutral({"neighbours": 0}),
    "lenient_sd": Neutral({"lenience": 1.0}),
    "medusa_typical": Neutral({"epsilon": 1.0}, "greedy"),
    "momentum": Neutral({"alpha": 0.0}, "greedy"),
    "nucleus": Neutral({"top_p": 1.0}),
    "topk_sd": Neutral({"top_k": 0}),
    "typical_sd": Neutral({"epsilon": 1.0}, "greedy"),
    "zipar": Neutral({"window": 1_000_000}),
}
"""Neutral values of the lossy methods, as their files document them."""


def changed(node: Any, change: Change, part: str = "") -> Any:
    """Return a node with every argument replaced by what `change` says of it.

    Only arguments of specbench's own parts: what another package's mean is unknown.
    """
    if not isinstance(node, Mapping):
        return node
    part = str(node.get("_target_", part))

    def argument(key: str, value: Any) -> Any:
        if key == "_target_":
            return value
        if part.startswith(_OURS):
            value = change(part.rpartition(".")[2], key, value)
        return changed(value, change, part)

    return {str(key): argument(str(key), value) for key, value in node.items()}


def shrunk(node: Node) -> Node:
    """Return a decoder node with drafts small enough to be enumerated."""

    def small(part: str, key: str, value: Any) -> Any:
        wanted = _SMALL_OF.get((part, key), _SMALL.get(key))
        if wanted is None or isinstance(value, Mapping) or value is None:
            return value
        if isinstance(wanted, list):
            return wanted if isinstance(value, Sequence) else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        return max(value, wanted) if key == "low" else min(value, wanted)

    result: Node = changed(node, small)
    return result


def neutral(node: Node, arguments: Mapping[str, Any]) -> Node:
    """Return a decoder node with some arguments replaced, wherever they stand."""
    result: Node = changed(node, lambda part, key, value: arguments.get(key, value))
    return result


@dataclass
class Fitter:
    """Gives decoders what a table model cannot, and holds the datastores that it builds.

    Use as a context: the datastores are deleted at its end.
    """

    _folder: TemporaryDirectory[str] | None = field(default=None, repr=False)
    _stores: dict[tuple[str, int], str] = field(default_factory=dict, repr=False)

    def __enter__(self) -> Fitter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def fitted(self, node: Node, models: ModelPair) -> Node:
        """Return a decoder node that runs on a pair of tables."""

        def by_hand(part: str, key: str, value: Any) -> Any:
            if value is None:
                return _BY_HAND.get((part, key))
            if isinstance(value, Mapping) and value.get("_target_") == _DATASTORE:
                return {**value, "path": self._store(str(value["kind"]), models)}
            if key == "grammar" and isinstance(value, str):
                return TableGrammar(models.target.vocab_size)
            return value

        result: Node = changed(node, by_hand)
        return result

    def _store(self, kind: str, models: ModelPair) -> str:
        """Return a folder with random texts over the pair's tokens."""
        vocab = models.target.vocab_size
        key = (kind, vocab)
        if key not in self._stores:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="specbench-audit-")
            folder = Path(self._folder.name) / f"{kind}-{vocab}"
            generator = np.random.default_rng(0)
            texts = [" ".join(map(str, generator.integers(0, vocab, 40))) for _ in range(6)]
            dense = None
            if kind == "dense":
                dense = DenseOptions(lambda partial: states_of(models.target, partial), "")
            source = Text("tables", "", [Piece(text, True) for text in texts])
            build(folder, [source], Tokenizer(_ids, "sha256:tables", "tables"), dense=dense)
            self._stores[key] = str(folder)
        return self._stores[key]


def _ids(texts: list[str]) -> list[list[int]]:
    return [[int(word) for word in text.split()] for text in texts]
