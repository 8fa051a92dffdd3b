"""Copy what followed the last few tokens when they last (or first) occurred."""

from __future__ import annotations

from typing import Literal

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Plan, Prefill
from specbench.decoding.request import before_stop
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.transfer import to_device

Match = Literal["first", "last"]


class PromptLookup(Drafter):
    """Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding).

    For the longest n-gram that ends the text and occurred before, propose the tokens that
    followed it. The n-grams are indexed as tokens are committed, so that a round looks up a few
    keys and never scans the text. The suffix itself is not yet in the index: a match always has
    at least one token after it. The copy carries no law. It ends before a stop token, as in
    transformers (`PromptLookupCandidateGenerator`): the target's own next token says as much.

    Args:
        ngram_max: Longest n-gram to look up.
        ngram_min: Shortest.
        draft_length: Tokens to copy; the length policy and the request may allow fewer.
        match: Which earlier occurrence to copy from; the reference takes the first.
        allow_short: Whether a copy that runs into the end of the text is proposed; the
            reference asks for a full-length continuation.
    """

    def __init__(
        self,
        ngram_max: int = 3,
        ngram_min: int = 1,
        draft_length: int = 10,
        match: Match = "first",
        allow_short: bool = True,
    ) -> None:
        assert 1 <= ngram_min <= ngram_max and draft_length >= 1
        assert match in ("first", "last")
        self._sizes = range(ngram_max, ngram_min - 1, -1)
        self._draft_length = draft_length
        self._first = match == "first"
        self._lag = 1 if allow_short else draft_length

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Index the prompt."""
        drafting = _Copies(self._sizes, self._draft_length, self._first, self._lag)
        drafting.index(session.committed)
        session.clock.lap(Segment.DRAFT)
        return drafting


class _Copies(Drafting):
    """The n-grams of one request and what followed them; see `PromptLookup`."""

    def __init__(self, sizes: range, draft_length: int, first: bool, lag: int) -> None:
        self._sizes = sizes
        self._draft_length = draft_length
        self._first = first
        self._lag = lag
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the copied chain, or None where nothing matches."""
        count = min(self._draft_length, plan.length.limit(), plan.depth)
        if count < 1:
            return None
        text = session.committed
        self.index(text)
        for size in self._sizes:
            start = self._after.get(tuple(text[-size:])) if size < len(text) else None
            if start is not None:
                copied = session.drawable(text[start : start + count])
                if copied:
                    copied = before_stop(copied, session.stops)
                    device = session.models.target.device
                    return DraftTree.chain(to_device([copied], device)) if copied else None
        return None

    def index(self, text: list[int]) -> None:
        """Index every n-gram that has at least `lag` tokens after it."""
        for end in range(self._indexed + 1, len(text) - self._lag + 1):
            for size in self._sizes:
                if size <= end:
                    ngram = tuple(text[end - size : end])
                    if self._first:
                        self._after.setdefault(ngram, end)
                    else:
                        self._after[ngram] = end
            self._indexed = end
