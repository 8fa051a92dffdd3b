"""The table models and requests on which decoders are audited.

Every pair is exact and small: a law over a few tokens that looks back one or two of them. Each
case is a place where decoders go wrong: a warped law, a penalty on the node's own history, an end
of text or a limit inside a draft, late positions, a draft that disagrees, ties, and tokens that
one model forbids and the other proposes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specbench.audit.pictures import guided_picture, picture_prompt
from specbench.decoding.request import Request, StopTokens
from specbench.law import Guidance, Law
from specbench.models.pair import ModelPair
from specbench.models.table import Table, TableModel, drift_table, markov_table
from specbench.rng import Streams

MakePair = Callable[[], ModelPair]


@dataclass(frozen=True)
class Case:
    """One request on one pair of tables.

    Attributes:
        name: What is asked, in words.
        make: Makes the pair.
        law: The target's law.
        prompt: Token ids.
        count: Most new tokens.
        stop: Tokens that end an answer.
        draft_law: The draft's law; None for the target's settings.
        quick: Whether it belongs to the short form of an audit.
        memory: Tokens that the target looks back; 0 where its law depends on all of them.
    """

    name: str
    make: MakePair
    law: Law = Law()
    prompt: tuple[int, ...] = (0, 1, 0)
    count: int = 3
    stop: frozenset[int] = frozenset()
    draft_law: Law | None = None
    quick: bool = False
    memory: int = 0

    def request(self, seed: int = 0) -> Request:
        """Return the request with the random numbers of a seed."""
        streams = Streams(seed, f"audit/{self.name}")
        stop = StopTokens(self.stop)
        return Request(self.prompt, self.count, self.law, streams, stop, self.draft_law)


def table_pair(vocab: int = 3, order: int = 2, seed: int = 0, sharpness: float = 1.0) -> ModelPair:
    """Return two unrelated random tables, with a second draft and a law for skipped sublayers."""
    tables = [markov_table(order, vocab, seed + index, sharpness) for index in range(4)]
    return pair_of(tables[0], tables[1], vocab, tables[2], tables[3])


def pair_of(
    target: Table,
    draft: Table,
    vocab: int,
    other: Table | None = None,
    skipped: Table | None = None,
) -> ModelPair:
    """Return a pair of tables.

    Args:
        target: The target's law.
        draft: The draft's.
        vocab: Number of tokens.
        other: The law of a second draft model; the first one's where None.
        skipped: The target's law where it leaves out sublayers; the draft's where None.
    """
    return ModelPair(
        "tables",
        TableModel(target, vocab, "target", skipped=skipped or draft),
        TableModel(draft, vocab, "draft"),
        more_drafts=(TableModel(other or draft, vocab, "second draft"),),
    )


def two_tokens() -> ModelPair:
    """Return a pair over two tokens, of which longer outputs can be enumerated."""
    return table_pair(vocab=2)


def disagreeing_pair() -> ModelPair:
    """Return a pair whose draft likes best what the target likes least."""
    table = markov_table(2, 3, 5, 2.0)
    return pair_of(table, lambda context: -table(context), 3)


def tied_pair(vocab: int = 4) -> ModelPair:
    """Return a pair whose logits are 0 or 1: equal probabilities everywhere."""

    def stepped(seed: int) -> Table:
        table = markov_table(2, vocab, seed)
        return lambda context: (table(context) > 0.3).double()

    return pair_of(stepped(3), stepped(4), vocab)


def forbidding_pair() -> ModelPair:
    """Return a pair in which each model forbids a token that the other one proposes."""

    def without(table: Table, shift: int) -> Table:
        def forbidden(context: tuple[int, ...]) -> Tensor:
            logits = table(context).clone()
            logits[(context[-1] + shift) % len(logits)] = -torch.inf
            return logits

        return forbidden

    return pair_of(without(markov_table(2, 3, 7), 1), without(markov_table(2, 3, 8), 2), 3)


def likely_pair(vocab: int = 6, seed: int = 0) -> ModelPair:
    """Return a sharp target and a draft that is mostly right, for long greedy texts."""
    table = markov_table(2, vocab, seed, 2.0)
    noise = markov_table(1, vocab, seed + 100, 2.0)
    return pair_of(table, drift_table(table, noise, 0.3), vocab)


def lacking_pair() -> ModelPair:
    """Return a target of three tokens, a draft without the last and one with a token more."""
    tables = [markov_table(2, vocab, vocab, 2.0) for vocab in (3, 2, 4)]
    return ModelPair(
        "tables",
        TableModel(tables[0], 3, "target", skipped=markov_table(2, 3, 9)),
        TableModel(tables[1], 2, "draft"),
        more_drafts=(TableModel(tables[2], 4, "second draft"),),
    )


WARPED = Law(temperature=0.7, top_k=2, repetition_penalty=1.3)
PENALISED = Law(repetition_penalty=1.7)
END = frozenset({1})
ROW = (0, 1, 0, 2, 0, 1)

ENUMERATED: tuple[Case, ...] = (
    Case("temperature 1", table_pair, prompt=ROW, quick=True),
    Case(
        "temperature 0.7, top-k 2, repetition penalty 1.3",
        table_pair,
        WARPED,
        prompt=(0,),
        count=4,
        quick=True,
    ),
    Case("temperature 1.5, top-p 0.8", table_pair, Law(temperature=1.5, top_p=0.8)),
    Case("repetition penalty 1.7, prompt of one token", table_pair, PENALISED, (0,)),
    Case("end of text inside a draft", two_tokens, count=4, stop=END, quick=True),
    Case("end of text inside a draft, three tokens", table_pair, count=4, stop=END),
    Case("late positions", two_tokens, count=4, quick=True),
    Case("later positions", two_tokens, count=5),
    Case("length limit 1", table_pair, count=1),
    Case("length limit 2", table_pair, count=2),
    Case("a draft that disagrees", disagreeing_pair, quick=True),
    Case("equal probabilities, top-k 2", tied_pair, Law(top_k=2)),
    Case("forbidden tokens on both sides", forbidding_pair, prompt=(0,), count=4),
    Case("a draft without a token", lacking_pair, prompt=(2, 0), quick=True),
    Case("a draft without the end of text", lacking_pair, WARPED, (0, 2), 4, frozenset({2})),
    Case("a draft at temperature 2", table_pair, draft_law=Law(temperature=2.0)),
    Case("a draft at temperature 0", table_pair, draft_law=Law(temperature=0.0)),
    Case("three positions of two tokens", two_tokens, count=3, quick=True),
)
"""Cases whose whole output law is enumerated, in the order in which they are tried."""

SAMPLED: tuple[Case, ...] = (
    Case(
        "temperature 1, 24 tokens",
        lambda: table_pair(vocab=4, order=1),
        count=24,
        quick=True,
        memory=1,
    ),
    Case(
        "temperature 0.8, top-k 3, top-p 0.9, 24 tokens",
        lambda: table_pair(vocab=4, order=1, seed=20),
        Law(temperature=0.8, top_k=3, top_p=0.9),
        count=24,
        memory=1,
    ),
    Case(
        "repetition penalty 1.7, end of text, 5 tokens",
        lambda: table_pair(seed=30),
        Law(repetition_penalty=1.7),
        count=5,
        stop=END,
    ),
)
"""Cases that are decoded again and again with real random numbers."""

_GREEDY = Law(temperature=0.0)
_GREEDY_PENALISED = Law(temperature=0.0, repetition_penalty=1.4)


def _greedy(name: str, law: Law = _GREEDY, **options: object) -> Case:
    fields: dict[str, object] = {"make": likely_pair, "count": 30, "prompt": ROW, **options}
    return Case(name, law=law, **fields)  # type: ignore[arg-type]


GREEDY: tuple[Case, ...] = (
    _greedy("temperature 0", quick=True),
    _greedy("temperature 0, repetition penalty 1.4", _GREEDY_PENALISED, quick=True),
    _greedy("temperature 0, equal probabilities", make=tied_pair, quick=True),
    _greedy("temperature 0, end of text", stop=frozenset({1, 4}), quick=True),
    _greedy("temperature 0, prompt of one token", prompt=(2,)),
    _greedy("temperature 0, a draft that disagrees", make=disagreeing_pair),
    _greedy("temperature 0, a draft without a token", make=lacking_pair, quick=True),
    _greedy("temperature 0, length limit 1", count=1, quick=True),
    _greedy("temperature 0, length limit 2", count=2),
    _greedy("temperature 0, length limit 7", count=7),
)
"""Greedy texts that must be those of the target, token for token."""

PICTURES: tuple[Case, ...] = (
    Case(
        "picture of 2 x 2 codes, guidance 2",
        lambda: guided_picture(2, 2, 2),
        Law(guidance=Guidance(2.0)),
        picture_prompt(2),
        7,
        quick=True,
    ),
    Case(
        "picture of 2 x 2 codes, guidance 3 (linear), top-k 2",
        lambda: guided_picture(2, 2, 3),
        Law(temperature=0.8, top_k=2, guidance=Guidance(3.0, "linear")),
        picture_prompt(3),
        7,
    ),
)
"""Pictures whose whole output law is enumerated."""

SAMPLED_PICTURES: tuple[Case, ...] = (
    Case(
        "picture of 2 x 3 codes, guidance 2",
        lambda: guided_picture(2, 3, 2),
        Law(guidance=Guidance(2.0)),
        picture_prompt(2),
        9,
        quick=True,
    ),
)
"""Pictures that are drawn again and again with real random numbers."""

GREEDY_PICTURES: tuple[Case, ...] = (
    Case(
        "temperature 0, picture of 4 x 4 codes, guidance 2",
        lambda: guided_picture(4, 4, 5),
        Law(temperature=0.0, guidance=Guidance(2.0)),
        picture_prompt(5),
        21,
        quick=True,
    ),
)
"""Pictures that must be the target's greedy one, token for token."""
