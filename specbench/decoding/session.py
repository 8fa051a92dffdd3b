"""One request while it is being decoded: what belongs to it, and how its rounds are counted.

A session owns its caches, so that several can take turns on one model. The memory is the pair's
and goes from one session to the next: no generation pays for allocation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from itertools import takewhile
from typing import Any

from torch import Tensor

from specbench.cache import Cache
from specbench.clock import Clock, Segment
from specbench.decoding.ledger import DRAFT, TARGET, Count, Generation, StopReason, Work, join
from specbench.decoding.reading import read
from specbench.decoding.request import Cut, Request
from specbench.errors import SpecbenchError
from specbench.law import History, Law
from specbench.models.base import AncestorMask, LayerSkip, Model, Taps, View
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import to_device

Rounds = Generator[list[int], None, None]
"""The rounds of a decoder: each `yield` closes one and hands out the tokens that it kept."""


class PromptTooLong(SpecbenchError):
    """A prompt leaves no room for its answer in the model's context."""


class Role:
    """A model at work for one request: its cache, its law, and the tokens that it knows of.

    Args:
        name: Under which its work is counted.
        model: The model that is fed.
        cache: Its cache.
        law: What it draws from.
        request: Whose numbers and choices it draws with.
        text: [1, T] the committed tokens.

    Attributes:
        history: The committed tokens, as far as the law needs them.
        skip: Sublayers that the model leaves out.
        work: What it was fed in the round that is open.
    """

    def __init__(
        self, name: str, model: Model, cache: Cache, law: Law, request: Request, text: Tensor
    ) -> None:
        self.name = name
        self.model = model
        self.cache = cache
        self.law = law
        self.history = History(law, text, model.vocab_size)
        self.skip: LayerSkip | None = None
        self.work = Work()
        self._request = request

    def feed(
        self,
        tokens: Tensor,
        mask: AncestorMask | None = None,
        last: int = 0,
        taps: Taps | None = None,
    ) -> Tensor:
        """Feed tokens behind the cached ones and count the work; see `Model.forward`."""
        return self.look(tokens, View(mask=mask, last=last, skip=self.skip, taps=taps))

    def look(self, inputs: Tensor, view: View) -> Tensor:
        """Feed tokens or features under any view and count the work; see `Model.forward`."""
        self.work = Work(self.work.forwards + 1, self.work.tokens + inputs.shape[1])
        return self.model.forward(inputs, self.cache, view)

    def next_token(self, logits: Tensor, position: int) -> Tensor:
        """Draw the token at an absolute position from its logits, [1, V]; return it as [1]."""
        law, seen = self.law, self.history.now()
        if law.greedy:
            return law.argmax(logits, seen)
        number = self._request.streams.uniform(position, Purpose.SAMPLE)
        return self._request.choices.draw(law.probabilities(logits, seen), number)


class Session:
    """One request: its models' caches, its tokens, its ledger and its clock.

    The clock starts when the session is made. A round commits tokens and is closed: cuts at the
    first stop token and at exactly max_new_tokens are made there, before anything is counted, in
    one place for every decoder.

    Args:
        models: The pair that decodes it, under any law; the request's counts.
        request: What was asked.
        clock: Times this session; sessions that take turns have a clock each.
        extra: Cache slots behind prompt and answer.

    Attributes:
        committed: Prompt and emitted tokens. Drafters that draft with the target itself write
            behind them and truncate the cache again.
        prompt: [1, T] the prompt on the target's device.
        target: The target at work.
        capacity: Longest sequence that a cache holds.
        rounds: The rest of its rounds.
        cut: Where and why the text ends, once it does.

    Raises:
        PromptTooLong: If prompt and answer exceed the models' context. All arms are refused
            alike, so that no arm is measured on a shorter answer.
    """

    rounds: Rounds

    def __init__(self, models: ModelPair, request: Request, clock: Clock, extra: int = 0) -> None:
        models = models.under(request.law)
        total = len(request.prompt) + request.max_new_tokens
        if total > models.context:
            raise PromptTooLong(
                f"{len(request.prompt)} prompt tokens and {request.max_new_tokens} new tokens "
                f"exceed the context of {models.context}",
                f"'{models.name}' cannot attend to more tokens",
                "Lower max_new_tokens or leave the sample out.",
            )
        self.models = models
        self.request = request
        self.clock = clock
        self.capacity = total + extra
        clock.start()
        self.committed = list(request.prompt)
        self.cut: Cut | None = None
        self._first = self._closed = len(request.prompt)
        self._counts: list[Count] = []
        self._sealed: deque[dict[str, Work]] = deque()
        self._roles: list[Role] = []
        self._lent: dict[str, Cache] = {}
        target = models.target
        cache = self._borrow("target", target)
        self.prompt = to_device([request.prompt], target.device)
        self.target = Role(TARGET, target, cache, request.law, request, self.prompt)
        self._roles.append(self.target)

    # The models at work.

    def draft(self, index: int = 0) -> Role:
        """Let one of the pair's draft models work for this request, with a cache of its own."""
        model = self.models.drafts[index]
        return self.drafting(model, self._borrow(f"draft {index}", model))

    def head(self) -> Role:
        """Let the pair's head draft for this request, with a cache of its own."""
        head = self.models.head
        assert head is not None
        return self.drafting(head, self._borrow("head", head))

    def drafting(self, model: Model, cache: Cache) -> Role:
        """Let a model draft for this request under the draft's law."""
        return self.join(DRAFT, model, cache, self.request.draft_law or self.request.law)

    def join(self, name: str, model: Model, cache: Cache, law: Law) -> Role:
        """Let a model work for this request in a role of some name."""
        text = to_device([self.committed], model.device)
        role = Role(name, model, cache, law, self.request, text)
        self._roles.append(role)
        return role

    def feed(
        self,
        tokens: Tensor,
        mask: AncestorMask | None = None,
        last: int = 0,
        taps: Taps | None = None,
    ) -> Tensor:
        """Feed the target, and charge the time to it."""
        logits = self.target.feed(tokens, mask, last, taps)
        self.clock.lap(Segment.TARGET)
        return logits

    def read(self, tensor: Tensor) -> Any:
        """Look at the device, once in a round; see `reading.read`."""
        return read(tensor, self.clock)

    def next_token(self, logits: Tensor) -> Tensor:
        """Draw the target's next token, [1], from its logits, [1, V]."""
        return self.target.next_token(logits, len(self.committed))

    # The text.

    @property
    def stops(self) -> frozenset[int]:
        """Tokens behind which nothing is emitted."""
        return self.request.stop.ids

    @property
    def answer(self) -> list[int]:
        """A copy of the emitted tokens."""
        return self.committed[self._first :]

    @property
    def emitted(self) -> int:
        """Number of tokens emitted so far."""
        return len(self.committed) - self._first

    @property
    def budget(self) -> int:
        """Deepest draft that can still be emitted in full, its next token included."""
        return self.request.max_new_tokens - self.emitted - 1

    @property
    def done(self) -> bool:
        """Whether the text has ended."""
        return self.cut is not None

    def drawable(self, tokens: Sequence[int]) -> list[int]:
        """Return copied tokens up to the first that the target's law has no column for."""
        width = self.models.target.vocab_size
        return list(takewhile(lambda token: token < width, tokens))

    def commit(self, tokens: Sequence[int]) -> None:
        """Let tokens follow the text, and every law that looks at it know of them."""
        self.committed.extend(tokens)
        for role in self._roles:
            if role.law.needs_history:
                role.history.commit(to_device([tokens], role.model.device))

    def check_cache(self, cache: Cache | None = None) -> None:
        """Assert the invariant of most loops: everything but the newest token is cached."""
        lengths = (self.target.cache if cache is None else cache).lengths
        assert lengths[0] == len(self.committed) - 1, (lengths, len(self.committed))

    # The ledger.

    def close(
        self, proposed: int = 0, accepted: int = 0, nodes: int = 0, decided: int | None = None
    ) -> list[int]:
        """Close a round: cut what was committed since the last one, and count.

        What was accepted behind the last kept token was neither proposed nor accepted: no answer
        could have held it. The first round emits one token; what it decided beyond becomes a
        round without work, because the time to the first token holds all that had to be computed
        before that token was known.

        Args:
            proposed: Draft tokens on the longest proposed path, none behind a stop token.
            accepted: Draft tokens accepted by the verifier.
            nodes: Draft nodes scored by the target.
            decided: Tokens that the round fixed, where others are emitted than these.

        Returns:
            The kept tokens. `cut` is set where the text ends.
        """
        if self._counts or self.emitted < 2:
            return self._close(proposed, accepted, nodes, decided)
        later = self.committed[self._first + 1 :]
        del self.committed[self._first + 1 :]
        kept = self._close(proposed, accepted, nodes, decided)
        if not self.done:
            self.committed += later
            kept += self._close(0, 0, 0, None)
        return kept

    def _close(self, proposed: int, accepted: int, nodes: int, decided: int | None) -> list[int]:
        text, first, before = self.committed, self._first, self._closed
        cut = self.request.stop.find(text, before, first)
        limit = first + self.request.max_new_tokens
        if len(text) >= limit and (cut is None or cut.length > limit):
            cut = Cut(limit, StopReason.LENGTH)
        if cut is not None:
            del text[cut.length :]
            self.cut = cut
        kept = text[before:]
        self._closed = len(text)
        if len(kept) <= accepted:
            proposed = accepted = len(kept)
        work = self._sealed.popleft() if self._sealed else self._take()
        self._counts.append(Count(proposed, accepted, len(kept), nodes, work, decided))
        self.clock.mark()
        return kept

    def seal(self) -> None:
        """Say that later work belongs to the next round, although this one is not closed yet."""
        self.clock.seal()
        self._sealed.append(self._take())

    def finish(self) -> Generation:
        """Stop the clock and return what was generated.

        Work behind the last round, whose result nobody needed, is counted in it.
        """
        assert self.cut is not None
        self.clock.stop()
        self.release()
        last = self._counts[-1]
        for wasted in (*self._sealed, self._take()):
            work = {role: last.work.get(role, Work()).plus(more) for role, more in wasted.items()}
            last = last._replace(work={**last.work, **work})
        self._counts[-1] = last
        return Generation(
            tokens=tuple(self.answer),
            rounds=join(self._counts, self.clock.rounds),
            stop_reason=self.cut.reason,
            total_ns=self.clock.total_ns,
            prefill_ns=self.clock.ends_ns[0],
            device_ns=self.clock.device_ns,
        )

    def _take(self) -> dict[str, Work]:
        """Return what each role was fed in the open round, and start anew."""
        work: dict[str, Work] = {}
        for role in self._roles:
            if role.work.forwards:
                known = work.get(role.name)
                work[role.name] = role.work if known is None else known.plus(role.work)
                role.work = Work()
        return work

    # Memory.

    def release(self) -> None:
        """Give the caches back; nothing more can be decoded."""
        self.rounds.close()
        while self._lent:
            self.models.give_back(*self._lent.popitem())

    def _borrow(self, key: str, model: Model) -> Cache:
        cache = self._lent[key] = self.models.lend(key, model, self.capacity)
        return cache
