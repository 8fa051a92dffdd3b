"""Lookahead decoding: collect n-grams from Jacobi iterations, verify the fitting ones, at once.

Fu et al. 2024, "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding"; read
in github.com/hao-ai-lab/LookaheadDecoding (lade/decoding.py, lade/models/modeling_llama.py).

Every forward holds the newest token, the window and the guesses. The window has W columns and
N - 1 rows; row r, column c stands r + c positions behind the newest token, which is itself row
0, column 0. An entry sees the committed text, row 0 up to its own column, and its own column in
the rows between; its argmax is what a Jacobi iteration puts into the row below. After the
forward the argmaxes of the last row complete W new n-grams of N tokens, one for each column;
they go into the pool under their first token. Then the oldest row leaves and the window stands
one position further. A guess is an n-gram of the pool that begins with the newest token; each is
a branch of its own that sees the text and itself, never the window.

The window always guesses by argmax, even where the target samples. Guesses are verified as
`sample_match` verifies a tree, with one draw for each prefix and position, so that the output is
the target's sample with the numbers of plain decoding. The released code walks the guesses with
point-mass rejection instead; both have the target's law.

In two things the released code differs, and `released` follows it. Where a whole guess is right it
drops the token behind it, N - 1 tokens in place of N. And it keeps stop tokens in the window but
where the target samples and the window is full (`filter_window`, which replaces the first of
several stop tokens alone); here they are replaced always, by random tokens of the text as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.loops.window import Pool, Window
from specbench.decoding.ranges import check_number
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.decoding.tree import HOST, TreeMask
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import to_device


class Lookahead(Decoder):
    """Window and pool of n-grams in one fused forward.

    Args:
        level: N, tokens of an n-gram, the key included; at least 3.
        window: W, columns of the window; at least 1.
        guesses: G, most n-grams of one key in the pool, and most branches of one forward.
        pool_from_prompt: Whether n-grams of the prompt and of the emitted text enter the pool.
        shift_accepted: Whether the window moves by all emitted tokens; otherwise by one in
            every round, as the released code does by default.
        released: Whether the token behind a wholly right guess is dropped, and stop tokens are
            replaced only in a full window under sampling, as in the released code.

    Raises:
        ConfigError: If a parameter is too small.
    """

    needs = frozenset({"tree_mask"})

    def __init__(
        self,
        level: int = 5,
        window: int = 7,
        guesses: int = 7,
        pool_from_prompt: bool = False,
        shift_accepted: bool = False,
        released: bool = False,
    ) -> None:
        check_number("level", level, 3)
        check_number("window", window, 1)
        check_number("guesses", guesses, 1)
        self._level = level
        self._window = window
        self._span = window + level - 3
        self._guesses = guesses
        self._from_prompt = pool_from_prompt
        self._shift_accepted = shift_accepted
        self._released = released

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots of the largest forward."""
        return 1 + self._span + (self._level - 1) * (self._window + self._guesses)

    def rounds(self, session: Session) -> Rounds:
        """Read the prompt with the first row; then feed newest token, window and guesses."""
        models, request, clock = session.models, session.request, session.clock
        committed, cache, device = session.committed, session.target.cache, session.prompt.device
        pool = Pool(self._guesses)
        if self._from_prompt:
            width = models.target.vocab_size  # an image model reads words that no picture can hold
            pool.add_text([token for token in committed if token < width], self._level)
        window = Window(self._level, self._window, self._shift_accepted)
        first = _random_tokens(request, committed, self._span)
        if len(committed) + self._span > models.context:
            first = []
        prompt = to_device([committed + first], device)
        clock.lap(Segment.DRAFT)

        logits = session.feed(prompt, last=len(first) + 1)
        cache.truncate([len(committed)])
        token = session.next_token(logits[:, 0])
        both = session.read(torch.cat([token, logits[0, 1:].argmax(-1)]))
        session.commit(both[:1])
        window.begin(first, both[1:])
        if self._from_prompt:
            pool.add_text(committed[-self._level :], self._level)
        yield session.close()

        while True:
            left, root = session.budget, committed[-1]
            looks = left > 0 and len(committed) + self._span <= models.context
            rows = window.rows if looks else []
            length = min(self._level - 1, left)
            found = pool.lookup(root) if window.full and length else []
            guesses = [ngram[:length] for ngram in found]
            columns = len(rows[0]) + 1 if rows else 1
            layout = Layout(columns, max(len(rows) - 1, 0), len(guesses), length)
            tokens = [root, *_flat(rows), *_flat(guesses)]
            clock.launch()
            fed = to_device([tokens], device)
            base = cache.lengths[0]
            clock.lap(Segment.DRAFT)
            logits = session.feed(fed, layout.mask(device))

            drawn, predicted = _read(session, logits, fed, layout)
            emitted, branch = follow(guesses, drawn)
            if self._released and len(emitted) == self._level:
                emitted.pop()
            accepted = len(emitted) - 1
            start = layout.first_guess + branch * length
            cache.keep([base], [[0, *range(start, start + accepted)]])
            session.commit(emitted)
            session.check_cache()
            clock.lap(Segment.SAMPLING)

            if predicted:
                if window.full:
                    pool.add_window(root, window.rows, predicted)
                fresh = _random_tokens(request, committed, accepted + len(predicted))
                unwanted = models.stop_ids
                if self._released and (request.law.greedy or not window.full):
                    unwanted = frozenset()
                window.advance(predicted, accepted, unwanted, fresh)
            if self._from_prompt:
                pool.add_text(committed[-len(emitted) - self._level + 1 :], self._level)
            clock.lap(Segment.DRAFT)
            proposed = length if guesses else 0
            yield session.close(proposed, accepted, layout.guesses * length)


@dataclass(frozen=True)
class Layout:
    """Where everything stands in one fused forward.

    Attributes:
        columns: Columns of the window, the newest token included; 1 without a window.
        rows: Rows of the window below row 0; 0 without a window.
        guesses: Number of branches.
        length: Tokens of each branch.
    """

    columns: int
    rows: int
    guesses: int
    length: int

    @property
    def first_guess(self) -> int:
        """Index of the first branch's first token."""
        return self.columns * (self.rows + 1)

    def mask(self, device: torch.device = HOST) -> TreeMask | None:
        """Return who sees whom, or None where causal order says it."""
        if not self.rows and self.guesses < 2:
            return None
        return _mask(self.columns, self.rows, self.guesses, self.length, device)


@lru_cache(maxsize=256)
def _mask(
    columns: int, rows: int, guesses: int, length: int, device: torch.device = HOST
) -> TreeMask:
    first_guess = columns * (rows + 1)
    total = first_guess + guesses * length
    visible = torch.zeros(total, total, dtype=torch.bool)
    offsets = torch.zeros(total, dtype=torch.int64)
    column = torch.arange(columns)
    step = torch.arange(length)
    causal = torch.ones(columns, columns, dtype=torch.bool).tril()
    for row in range(rows + 1):
        here = slice(row * columns, (row + 1) * columns)
        visible[here, :columns] = causal
        offsets[here] = column + row
        for above in range(1, row + 1):
            visible[here, above * columns : (above + 1) * columns] = torch.eye(
                columns, dtype=torch.bool
            )
    branch = torch.ones(length, length, dtype=torch.bool).tril()
    for guess in range(guesses):
        here = slice(first_guess + guess * length, first_guess + (guess + 1) * length)
        visible[here, 0] = True
        visible[here, here] = branch
        offsets[here] = step + 1
    return TreeMask.on(device, offsets, visible)


def _read(
    session: Session, logits: Tensor, fed: Tensor, layout: Layout
) -> tuple[list[int], list[int]]:
    """Return the target's tokens at the root and the guesses, and the last row's argmaxes."""
    law, history = session.request.law, session.target.history
    first, count = layout.first_guess, layout.guesses * layout.length
    judged = torch.cat([logits[:, :1], logits[:, first:]], 1) if count else logits[:, :1]
    seen = history.along(fed[:, first:], _branches(layout.guesses, layout.length, fed.device))
    if law.greedy:
        drawn = law.argmax(judged, seen)[0]
    else:
        position, streams = len(session.committed), session.request.streams
        uniforms = streams.uniforms(position, layout.length + 1, Purpose.SAMPLE)
        numbers = uniforms[:1] + uniforms[1:] * layout.guesses
        by_node = to_device([numbers], logits.device, torch.float64)
        drawn = session.request.choices.draw(law.probabilities(judged, seen), by_node)[0]
    if not layout.rows:
        return session.read(drawn), []
    last_row = logits[0, first - layout.columns : first].argmax(-1)
    both: list[int] = session.read(torch.cat([drawn, last_row]))
    return both[: count + 1], both[count + 1 :]


@lru_cache(maxsize=64)
def _branches(guesses: int, length: int, device: torch.device) -> Tensor:
    """Return who sees whom among the root and the guesses alone."""
    return _mask(1, 0, guesses, length, device).ancestors


def follow(guesses: Sequence[tuple[int, ...]], drawn: Sequence[int]) -> tuple[list[int], int]:
    """Follow the target's tokens through the guesses.

    Branches that share a prefix share the draw of the first of them: one draw for each prefix
    and position, never one for each branch.

    Args:
        guesses: Branches of equal length.
        drawn: The target's token at the root, then at every token of the first branch, the
            second, and so on.

    Returns:
        The emitted tokens, and a branch that holds all of them but the last.
    """
    alive = list(range(len(guesses)))
    branch = 0
    emitted = [drawn[0]]
    length = len(guesses[0]) if guesses else 0
    for step in range(length):
        alive = [index for index in alive if guesses[index][step] == emitted[-1]]
        if not alive:
            break
        branch = alive[0]
        emitted.append(drawn[1 + branch * length + step])
    return emitted, branch


def _flat(rows: Sequence[Sequence[int]]) -> list[int]:
    return [token for row in rows for token in row]


def _random_tokens(request: Request, committed: Sequence[int], count: int) -> list[int]:
    """Return random tokens of the text so far."""
    numbers = request.streams.numbers(len(committed), count, Purpose.INITIAL)
    return [committed[int(number * len(committed))] for number in numbers]
