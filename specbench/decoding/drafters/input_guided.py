"""Copy the rest of the source from where the output last met it."""

from __future__ import annotations

from collections.abc import Sequence

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Plan, Prefill
from specbench.decoding.ranges import check_number
from specbench.decoding.request import before_stop
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.transfer import to_device

_REPEATED = -1


class InputGuided(Drafter):
    """Input-guided aggressive decoding.

    Sun et al. 2021, "Instantaneous Grammatical Error Correction with Shallow Aggressive
    Decoding"; Ge et al. 2022, "Lossless Acceleration for Seq2seq Generation with Aggressive
    Decoding". An edit copies most of its source: the whole rest of the source is the draft.
    After a mismatch the text goes on token by token until its last tokens occur exactly once in
    the source; that place is the new point of alignment. The rule was read in
    github.com/microsoft/unilm (decoding/IAD/inference.py, `paper_aggressive_generate`): n-grams
    of 1 to 3 tokens, the shortest first; one that does not occur ends the search, one that
    occurs several times asks for a longer one.

    Two things differ from the paper. A decoder-only model has no separate source: here it is
    the prompt, instructions included, so that nothing is copied before the first alignment
    (the paper begins at the start of the source). And the copy has no law, so a verifier that
    draws from the target keeps it exact at every temperature; the paper is greedy.

    Args:
        ngram_max: Longest n-gram that is looked for.
        ngram_min: Shortest.

    Raises:
        ConfigError: If ngram_min is less than one or ngram_max less than ngram_min.
    """

    def __init__(self, ngram_max: int = 3, ngram_min: int = 1) -> None:
        check_number("ngram_min", ngram_min, 1)
        check_number("ngram_max", ngram_max, ngram_min)
        self._sizes = range(ngram_min, ngram_max + 1)

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Index the prompt's n-grams."""
        drafting = Alignment(session.request.prompt, self._sizes)
        session.clock.lap(Segment.DRAFT)
        return drafting


class Alignment(Drafting):
    """Where the text of one request stands in its source; see `InputGuided`.

    Args:
        source: What is copied.
        sizes: Lengths of the n-grams that are looked for, the shortest first.
    """

    def __init__(self, source: Sequence[int], sizes: range) -> None:
        self._source = source
        self._sizes = sizes
        self._after: dict[tuple[int, ...], int] = {}
        for size in sizes:
            shifted = (source[offset:] for offset in range(size))
            for end, ngram in enumerate(zip(*shifted, strict=False), size):
                self._after[ngram] = _REPEATED if ngram in self._after else end

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the rest of the source as a chain, or None where the text is not aligned.

        The copy ends before a stop token: the target's own next token says as much.
        """
        start = self.find(session.committed)
        end = start + plan.levels
        copied = before_stop(session.drawable(self._source[start:end]), session.stops)
        if start == _REPEATED or not copied:
            return None
        return DraftTree.chain(to_device([copied], session.models.target.device))

    def find(self, text: list[int]) -> int:
        """Return the index in the source behind its only match of the text's end, or -1."""
        for size in self._sizes:
            start = self._after.get(tuple(text[-size:]))
            if start is None:
                break
            if start != _REPEATED:
                return start
        return _REPEATED
