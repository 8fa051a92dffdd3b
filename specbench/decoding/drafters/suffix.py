"""Draft what followed the longest runs of last tokens, here and in earlier answers.

Oliaro, Jia, Campos, Qiao 2024, "SuffixDecoding: Extreme Speculative Decoding for Emerging AI
Applications" (arXiv:2411.04975). Read in github.com/snowflakedb/ArcticInference, commit 9d46438
(arctic_inference/suffix_decoding/cache.py, csrc/suffix_decoding/suffix_tree.cc,
arctic_inference/vllm/model_runner.py), which vLLM's method `suffix` calls. The package itself is
no dependency: it compiles against one release of torch and brings a server along. Where counts
tie, the release takes any; here the token that reached the count first is taken.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.search.suffix_automaton import (
    Limits,
    Place,
    Speculation,
    SuffixAutomaton,
)
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class SuffixDecoding(Drafter):
    """Count continuations in a request's own text, and in this and all earlier answers.

    Every suffix of the text is looked up in both; the continuation with the largest sum of
    empirical probabilities is drafted, the request's own where both are equal. It carries no law.
    What is carried from request to request is the counts of earlier answers.

    Args:
        max_depth: Most tokens of a matched suffix and its continuation together.
        max_tokens: Most tokens of a draft.
        max_spec_factor: Draft tokens for every matched one.
        max_spec_offset: Draft tokens beside these.
        min_token_prob: A drafted path ends where its share of the suffix's occurrences falls
            below this.
        max_cached_requests: Earlier answers that are counted, the oldest forgotten first; 0 for
            none.
        tree: Whether the likeliest nodes are drafted as a tree, as in the paper, and not the
            likeliest path, as vLLM does.
        fallback: Drafts where the best score is lower than the number of tokens it may draft; it
            is told of its own rounds alone, and so must not need the target's states.
        fallback_length: That number.

    Raises:
        ConfigError: If a number is out of its range.
    """

    def __init__(
        self,
        max_depth: int = 64,
        max_tokens: int = 16,
        max_spec_factor: float = 1.0,
        max_spec_offset: float = 0.0,
        min_token_prob: float = 0.1,
        max_cached_requests: int = 10_000,
        tree: bool = False,
        fallback: Drafter | None = None,
        fallback_length: int = 0,
    ) -> None:
        check_whole("max_depth", max_depth, 2)
        check_whole("max_tokens", max_tokens, 1, 256)
        check_number("max_spec_factor", max_spec_factor, 0)
        check_number("max_spec_offset", max_spec_offset, -1024, 1024)
        check_number("min_token_prob", min_token_prob, 0, 1)
        check_whole("max_cached_requests", max_cached_requests, 0)
        check_whole("fallback_length", fallback_length, 0 if fallback is None else 1)
        self.limits = Limits(
            max_depth, max_tokens, max_spec_factor, max_spec_offset, min_token_prob, tree
        )
        self._most = max_cached_requests
        self.carries_state = max_cached_requests > 0
        self.fallback = fallback
        self.fallback_length = fallback_length
        self.nodes = max_tokens
        self.needs = frozenset({"tree_mask"} if tree else ())
        if fallback is not None:
            self.nodes = max(self.nodes, fallback.nodes)
            self.needs |= fallback.needs
            self.prompt_logits = fallback.prompt_logits
        self.reset()

    def prepare(self, models: ModelPair) -> None:
        """Prepare the fallback."""
        if self.fallback is not None:
            self.fallback.prepare(models)

    def inputs(self) -> dict[str, str]:
        """Return what the fallback reads."""
        return self.fallback.inputs() if self.fallback is not None else {}

    def reset(self) -> None:
        """Forget all earlier answers."""
        self.answers = SuffixAutomaton()
        self._open: list[_Suffixes] = []
        self._numbers = count()
        if self.fallback is not None:
            self.fallback.reset()

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Count the prompt; take in the ends of earlier answers, and forget the oldest."""
        for other in self._open:
            other.read()
        self._open = [other for other in self._open if not other.session.done]
        if self._most and len(self.answers.texts) >= self._most:
            self.answers.forget(next(iter(self.answers.texts)))
        begun = self.fallback.begin(session, prefill) if self.fallback is not None else None
        drafting = _Suffixes(self, session, next(self._numbers), begun)
        drafting.read()
        self._open.append(drafting)
        session.clock.lap(Segment.DRAFT)
        return drafting


class _Suffixes(Drafting):
    """One request's text, and its answer among all answers."""

    def __init__(
        self, drafter: SuffixDecoding, session: Session, number: int, fallback: Drafting | None
    ) -> None:
        self.session = session
        self._drafter = drafter
        self._number = number
        self._fallback = fallback
        self._fell_back = False
        self._own = SuffixAutomaton()
        self._own_place = Place()
        self._read = 0
        self._epoch = -1
        self._place = Place()
        if drafter.carries_state:
            drafter.answers.extend(number, ())

    def read(self) -> None:
        """Count the committed tokens that were not counted yet."""
        text, answers = self.session.committed, self._drafter.answers
        new = text[self._read :]
        self._own.extend(0, new)
        self._own_place = self._own.follow(self._own_place, new)
        if self._number in answers.texts:
            first = len(self.session.request.prompt)
            answers.extend(self._number, text[max(first, self._read) :])
        if self._epoch != answers.epoch:
            self._epoch, self._place = answers.epoch, Place()
            new = text[-self._drafter.limits.depth :]
        self._place = answers.follow(self._place, new)
        self._read = len(text)

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the better continuation of both counts, or what the fallback drafts."""
        self.read()
        drafter = self._drafter
        best = self._own.speculate(self._own_place, drafter.limits)
        known = drafter.answers.speculate(self._place, drafter.limits)
        best = known if known.score > best.score else best
        self._fell_back = best.score < drafter.fallback_length
        if self._fallback is not None and self._fell_back:
            depth = min(plan.depth, drafter.fallback_length)
            return self._fallback.propose(session, replace(plan, depth=depth))
        return self._drafted(best, plan.levels)

    def _drafted(self, best: Speculation, room: int) -> DraftTree | None:
        """Return the part that can be emitted, as a draft without a law."""
        target, stops = self.session.models.target, self.session.stops
        tokens: list[int] = []
        parents: list[int] = []
        kept, depths = {-1: -1}, {-1: 0}
        for node, (token, parent) in enumerate(zip(best.tokens, best.parents, strict=True)):
            usable = token not in stops and token < target.vocab_size
            if parent in kept and usable and depths[parent] < room:
                kept[node], depths[node] = len(tokens), depths[parent] + 1
                tokens.append(token)
                parents.append(kept[parent])
        if not tokens:
            return None
        return DraftTree(to_device([tokens], target.device), tuple(parents))

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Tell the fallback what became of its draft."""
        if self._fell_back and self._fallback is not None:
            self._fallback.observe(session, outcome)
