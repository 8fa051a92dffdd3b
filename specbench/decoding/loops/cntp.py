"""Cautious next token prediction: several trials up to the next mark where it is uncertain."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from specbench.clock import Clock, Segment
from specbench.decoding.base import Decoder
from specbench.decoding.loops.branches import Branches
from specbench.decoding.loops.scoring import entropy
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.errors import ConfigError
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import to_device

MARKS = ".,\n?!:;)]}"
"""The punctuation at which a trial ends, as in the release."""


class CNTP(Decoder):
    """Cautious Next Token Prediction (Wang et al. 2025, arXiv:2507.03038, algorithm 1).

    At a step of entropy H, n = 1 + (trials - 1) clip((H - low) / (high - low), 0, 1), rounded
    down. If n is one, one token is drawn. Otherwise n continuations are drawn independently,
    each up to the first punctuation mark, the end of the answer or its length limit, and the
    one of lowest perplexity is kept whole. Entropy (nats) and perplexity are those of the run's
    processed law, as in the release (github.com/wyzjack/CNTP, README and the patched
    transformers' `_sample_reflect_perplexity`); at temperature 0 that law is certain and
    everything is plain greedy decoding. A mark is a token that is that mark alone, not a longer
    token that contains it. The release encodes every mark by itself and takes the first id; with
    a tokenizer that marks the start of words that is the mark as a word of its own, and for the
    line break the bare start of a word. The id of the mark inside a text is a mark here too, so
    that trials end at it where the release's go on.

    The release copies the cache for every trial and computes the first step anew in each; here
    the trials are branches behind one cached text, and the draws of a discarded trial are never
    used again.

    Args:
        trials: Most continuations (N); 1 is plain sampling.
        low: Entropy up to which one token is drawn.
        high: Entropy from which all trials are drawn.

    Raises:
        ConfigError: If trials is less than one, or not 0 <= low < high.
    """

    needs = frozenset({"tree_mask"})

    def __init__(self, trials: int, low: float = 0.01, high: float = 1.5) -> None:
        check_whole("trials", trials, 1)
        check_number("low", low, 0)
        if not low < high:
            raise ConfigError(
                f"low={low} and high={high} are not possible",
                "the number of trials rises from the entropy `low` to the entropy `high`",
                "Choose 0 <= low < high.",
            )
        self._trials = trials
        self._low = low
        self._high = high
        self._marks: tuple[Any, frozenset[int]] = (None, frozenset())

    def prepare(self, models: ModelPair) -> None:
        """Look up which tokens are punctuation marks."""
        tokenizer = models.tokenizer
        if tokenizer is self._marks[0]:
            return
        ids = set()
        for mark in MARKS:
            ids.add(tokenizer.encode(mark, add_special_tokens=False)[0])
            # A tokenizer that marks the start of words has another token for a mark in a text.
            within = tokenizer.encode(f"a{mark}", add_special_tokens=False)[-1]
            if tokenizer.decode([within]) == mark:
                ids.add(within)
        self._marks = (tokenizer, frozenset(ids))

    def count(self, nats: float) -> int:
        """Return how many trials an entropy asks for."""
        share = (nats - self._low) / (self._high - self._low)
        return int(1 + (self._trials - 1) * min(max(share, 0.0), 1.0))

    def slots(self, models: ModelPair, request: Request) -> int:
        """Return the cache slots of all trials but one."""
        return (self._trials - 1) * request.max_new_tokens

    def open(self, models: ModelPair, request: Request, clock: Clock) -> Session:
        """Begin a request, with the marks of its tokenizer looked up."""
        self.prepare(models)
        return super().open(models, request, clock)

    def rounds(self, session: Session) -> Rounds:
        """Emit one token, or the best of several trials, a round."""
        request, fed = session.request, session.prompt
        while True:
            logits = session.feed(fed, last=1)[:, -1]
            law = request.law.probabilities(logits, session.target.history.now())
            number = request.streams.uniform(len(session.committed), Purpose.SAMPLE)
            first = request.choices.draw(law, number)
            token, nats = session.read(torch.cat((first.double(), entropy(law).double())))
            trials = self.count(nats)
            tokens = self._explore(session, law, first, trials) if trials > 1 else [int(token)]
            fed = to_device([tokens[-1:]], session.prompt.device)
            session.commit(tokens)
            session.check_cache()
            yield session.close()

    def _explore(self, session: Session, law: Tensor, first: Tensor, trials: int) -> list[int]:
        """Draw trials, keep the one of lowest perplexity in the cache, and return its tokens.

        Args:
            session: The request.
            law: [1, V] law of the next token.
            first: [1] first token of the first trial.
            trials: How many.
        """
        request, cache = session.request, session.target.cache
        streams, start = request.streams, cache.lengths[0]
        uniforms = streams.numbers(start, trials - 1, Purpose.INITIAL)
        others = request.choices.draw(law.expand(trials - 1, -1), _column(uniforms, law))
        tokens = torch.cat((first, others))
        chances = law[0, tokens]
        seen = session.target.history.now()
        paths = None if seen is None else seen.repeat(trials, 1)
        branches = Branches(trials, law.device)
        drawn: list[list[int]] = [[] for _ in range(trials)]
        surprise = [0.0] * trials
        active = list(range(trials))
        steps = 0
        while True:
            going = []
            ids, likely = session.read(torch.stack((tokens.double(), chances.double())))
            for row, trial in enumerate(active):
                drawn[trial].append(int(ids[row]))
                surprise[trial] -= math.log(likely[row])
                if not self._ends(session, drawn[trial]):
                    going.append(row)
            if not going:
                break
            active = [active[row] for row in going]
            rows = to_device(going, tokens.device)
            tokens = tokens[rows]
            if paths is not None:
                paths = paths[rows].scatter(1, tokens[:, None], True)
            mask = branches.grow(active)
            session.clock.lap(Segment.SAMPLING)
            logits = session.feed(tokens[None], mask)[0]
            steps += 1
            laws = request.law.probabilities(logits, paths)
            offset = steps * self._trials
            uniforms = streams.numbers(start, len(active), Purpose.INITIAL, offset)
            tokens = request.choices.draw(laws, _column(uniforms, laws))
            chances = laws.gather(-1, tokens[:, None])[:, 0]
        mean = [total / len(path) for total, path in zip(surprise, drawn, strict=True)]
        best = mean.index(min(mean))
        cache.keep([start], [branches.slots(best)])
        return drawn[best]

    def _ends(self, session: Session, trial: list[int]) -> bool:
        """Say whether a trial is complete."""
        if trial[-1] in self._marks[1]:
            return True
        whole = session.answer + trial
        if len(whole) >= session.request.max_new_tokens:
            return True
        return session.request.stop.find(whole, len(whole) - 1) is not None


def _column(uniforms: list[float], law: Tensor) -> Tensor:
    return to_device(uniforms, law.device, torch.float64)
