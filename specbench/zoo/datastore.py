"""The datastores of the embedded pair, built from its world's text at first use.

The text is the stream that the pair was trained on, without the held-out prompts, exactly as the
chat template writes it. A datastore is built once into the cache folder; the same version of
specbench builds the same one anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from specbench.datastore.build import DenseOptions, Text, Tokenizer, build
from specbench.datastore.dense import States, text_spans
from specbench.datastore.documents import Piece
from specbench.datastore.format import KINDS, read_metadata, vocabulary_digest
from specbench.errors import ConfigError
from specbench.models.base import Model
from specbench.models.pair import ModelPair
from specbench.models.states import final_states
from specbench.paths import cache_dir

AUTOMATIC = "auto"
EMBEDDED = "embedded:tiny_text_target"
TOKENS = {"suffix": 1_000_000, "dense": 60_000}
"""Tokens of each automatic datastore; the dense one takes a forward of the target for each."""

VERSION = 1
"""Moves when the text, its amount or the way of building changes."""

LONGEST = 1024
"""Tokens of one forward while states are computed; the authors of DReSD cut there too."""

_SEED = 0
_POOL = 256


class Datastore:
    """A datastore that is named, or the embedded pair's own.

    Args:
        path: A folder that `specbench datastore build` made, or "auto".
        kind: "suffix" or "dense".

    Raises:
        ConfigError: If the folder holds no datastore of that kind.
    """

    def __init__(self, path: str, kind: str) -> None:
        assert kind in KINDS
        self._path = None if path == AUTOMATIC else Path(path).expanduser()
        self._kind = kind
        if self._path is not None:
            read_metadata(self._path, kind)

    def folder(self, models: ModelPair) -> Path | None:
        """Return the folder, which is built first where it is the embedded pair's own.

        None for a model without a tokenizer, which has no text to look anything up in.

        Raises:
            ConfigError: If "auto" stands for nothing, because another model is decoded.
        """
        if self._path is not None:
            return self._path
        if models.tokenizer is None:
            return None
        if models.provenance.get("target", {}).get("source") != EMBEDDED:
            kind = "" if self._kind == "suffix" else f" --kind {self._kind}"
            raise ConfigError(
                f"'{models.name}' has no datastore of its own",
                "only the embedded pair comes with text to build one from",
                f"Build one: specbench datastore build FILES... -o DIR --model MODEL{kind}; "
                "then add method.datastore=DIR.",
            )
        return embedded_datastore(models, self._kind)


def embedded_datastore(models: ModelPair, kind: str) -> Path:
    """Return the embedded pair's datastore of a kind; build it if it is not in the cache."""
    vocabulary = vocabulary_digest(models.tokenizer.get_vocab())
    weights = str(models.provenance["target"]["digest"])
    named = vocabulary if kind == "suffix" else weights
    name = f"tiny_text-{kind}-v{VERSION}-{named.rpartition(':')[2][:12]}"
    folder = cache_dir() / "datastores" / name
    if (folder / "meta.json").is_file():
        return folder
    print(f"Building the embedded pair's {kind} datastore in {folder}", file=sys.stderr)
    dense = None
    if kind == "dense":
        dense = DenseOptions(lambda partial: states_of(models.target, partial), weights)
    build(
        folder,
        [Text(f"world/{_SEED}", f"version:{VERSION}", _world())],
        tokenizer_of(models.tokenizer, EMBEDDED),
        dense=dense,
        limit=TOKENS[kind],
        shared=True,
    )
    return folder


def tokenizer_of(tokenizer: Any, source: str) -> Tokenizer:
    """Return what a build needs of a transformers tokenizer."""

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return ids

    return Tokenizer(encode, vocabulary_digest(tokenizer.get_vocab()), source)


def states_of(model: Model, folder: Path) -> Iterator[States]:
    """Yield the hidden states of a datastore's text, each with the place of its next token.

    Args:
        model: The target.
        folder: The datastore's folder; its token file is written.
    """
    spans = text_spans(folder, min(LONGEST, model.context))
    # Texts of like length are read together, so that little is spent on padding.
    while pool := sorted(islice(spans, _POOL), key=lambda span: len(span[1])):
        for (place, _), states in zip(
            pool, final_states(model, [tokens for _, tokens in pool]), strict=True
        ):
            positions = np.arange(place + 1, place + len(states), dtype=np.int64)
            yield States(positions, states[:-1])


def _world() -> Iterator[Piece]:
    from specbench.zoo.held_out import held_out_prompts, training_samples
    from specbench.zoo.tokenizer import segments

    for sample in training_samples(_SEED, held_out_prompts()):
        yield Piece("".join(segment.text for segment in segments(sample)), True)
