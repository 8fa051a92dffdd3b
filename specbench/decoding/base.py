"""The Decoder contract, and what every loop does the same way: begin, cut, and account."""

from __future__ import annotations

from collections.abc import Sequence

from specbench.cache import Cache
from specbench.clock import Clock
from specbench.decoding.ledger import Count, Generation, StopReason, join
from specbench.decoding.request import Cut, Request
from specbench.errors import SpecbenchError
from specbench.law import Law
from specbench.models.pair import ModelPair


class Decoder:
    """Continues prompts. Stateless between requests unless it declares carried state.

    Attributes:
        carries_state: Whether it remembers anything from one request to the next.
        needs: What the model pair must have, such as "draft".
    """

    carries_state: bool = False
    needs: frozenset[str] = frozenset()

    def prepare(self, models: ModelPair) -> None:
        """Look at the loaded models once, before anything is timed."""

    def inputs(self) -> dict[str, str]:
        """Return digests of what it reads beside the models, such as a datastore, by name.

        They are part of what identifies a measurement.
        """
        return {}

    def check(self, law: Law) -> None:
        """Refuse a target law that this decoder cannot follow, before anything is measured.

        Raises:
            SpecbenchError: If it cannot.
        """

    def reset(self) -> None:
        """Forget carried state."""

    def generate(self, models: ModelPair, request: Request, clock: Clock) -> Generation:
        """Continue one prompt."""
        raise NotImplementedError


class PromptTooLong(SpecbenchError):
    """A prompt leaves no room for its answer in the model's context."""


def room(models: ModelPair, request: Request, extra: int = 0) -> int:
    """Return the cache slots that a request needs.

    Args:
        models: The pair that decodes it.
        request: The request.
        extra: Slots for draft tokens beyond the last emitted one.

    Raises:
        PromptTooLong: If prompt and answer exceed the model's context. All arms are refused
            alike, so that no arm is measured on a shorter answer.
    """
    total = len(request.prompt) + request.max_new_tokens
    if total > models.context:
        raise PromptTooLong(
            f"{len(request.prompt)} prompt tokens and {request.max_new_tokens} new tokens "
            f"exceed the context of {models.context}",
            f"'{models.name}' cannot attend to more tokens",
            "Lower max_new_tokens or leave the sample out.",
        )
    return total + extra


class Tally:
    """The emitted tokens and the ledger of one generation.

    Cuts at the first stop token and at exactly max_new_tokens before anything is counted, in
    one place for every loop.

    Args:
        request: What was asked.
        clock: The generation's clock.
    """

    def __init__(self, request: Request, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._counts: list[Count] = []
        self.tokens: list[int] = []
        self.cut: Cut | None = None

    def add(self, tokens: Sequence[int], count: Count) -> list[int]:
        """Record a round that produced `tokens`, and close it.

        What was accepted behind the last kept token was neither proposed nor accepted: no answer
        could have held it.

        Args:
            tokens: Ids from the verifier, accepted path and next token.
            count: The round's counts; its `emitted` is replaced by what is kept.

        Returns:
            The kept tokens. `cut` is set where the generation ends.
        """
        before = len(self.tokens)
        self.tokens.extend(tokens)
        limit = self._request.max_new_tokens
        cut = self._request.stop.find(self.tokens, before)
        if len(self.tokens) >= limit and (cut is None or cut.length > limit):
            cut = Cut(limit, StopReason.LENGTH)
        if cut is not None:
            del self.tokens[cut.length :]
            self.cut = cut
        kept = self.tokens[before:]
        count = count._replace(emitted=len(kept))
        if len(kept) <= count.accepted:
            count = count._replace(proposed=len(kept), accepted=len(kept))
        self._counts.append(count)
        self._clock.mark()
        return kept

    def charge(self, forwards: int, tokens: int) -> None:
        """Count further target work in the last round: work whose result nobody needed."""
        last = self._counts[-1]
        self._counts[-1] = last._replace(
            target_forwards=last.target_forwards + forwards,
            target_tokens=last.target_tokens + tokens,
        )

    def finish(self) -> Generation:
        """Stop the clock and return the generation."""
        assert self.cut is not None
        self._clock.stop()
        return Generation(
            tokens=tuple(self.tokens),
            rounds=join(self._counts, self._clock.rounds),
            stop_reason=self.cut.reason,
            total_ns=self._clock.total_ns,
            prefill_ns=self._clock.ends_ns[0],
            device_ns=self._clock.device_ns,
        )


def check_cache(cache: Cache, committed: Sequence[int]) -> None:
    """Assert the loop invariant: everything but the newest token is cached."""
    assert cache.lengths[0] == len(committed) - 1, (cache.lengths, len(committed))
