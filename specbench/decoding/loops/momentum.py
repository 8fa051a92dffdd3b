"""Momentum decoding: greedy search that pays for walking in circles."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch

from specbench.decoding.base import Decoder
from specbench.decoding.loops.scoring import ranked, refuse_sampling, widened
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.session import Rounds, Session
from specbench.law import Law
from specbench.transfer import to_device


class Repeats:
    """How long a repetition each next token would complete.

    Args:
        tokens: The text so far.
        longest: Repetitions are measured up to one token beyond this length.
    """

    def __init__(self, tokens: Sequence[int], longest: int) -> None:
        self._limit = longest + 1
        self._tokens: list[int] = []
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token to the text."""
        self._places[token].append(len(self._tokens))
        self._tokens.append(token)

    def length(self, candidate: int) -> int:
        """Return the length of the longest end of text + candidate that occurred in the text.

        0 where the candidate itself never occurred.
        """
        tokens, limit = self._tokens, self._limit
        longest = 0
        for place in reversed(self._places.get(candidate, ())):
            length = 1
            while length < limit and length <= place and tokens[place - length] == tokens[-length]:
                length += 1
            longest = max(longest, length)
            if longest == limit:
                break
        return longest


class Momentum(Decoder):
    """Momentum Decoding (Lan et al. 2022, arXiv:2212.02175).

    Of the `candidates` most probable tokens v, the one of largest p(v) - alpha f(l) is taken: l
    is the length of the repetition that v would complete, f(0) = 0 (v is new), f(l) = l up to
    `longest`, and infinite beyond. p is the model's law at temperature 1 (after the repetition
    penalty, where the run sets one). Where every candidate is forbidden, the most probable is
    taken. The table is the one for GPT2-XL in the release (github.com/gmftbyGMFTBY/
    MomentumDecoding, models/utlis_ngram.py), where it is commented out in favour of an ablation
    that blocks 4-grams; the release measures l only up to 5, so that its infinite entry is never
    reached, and this loop measures one token further.

    Args:
        alpha: Strength of the resistance; 0 is greedy decoding.
        candidates: Tokens that are compared in every step.
        longest: Longest repetition of finite resistance.

    Raises:
        ConfigError: If alpha is negative, or another parameter is less than one.
    """

    def __init__(self, alpha: float, candidates: int = 5, longest: int = 5) -> None:
        check_number("alpha", alpha, 0)
        check_whole("candidates", candidates, 1)
        check_whole("longest", longest, 1)
        self._alpha = alpha
        self._candidates = candidates
        self._longest = longest

    def check(self, law: Law) -> None:
        """Refuse a sampled law.

        Raises:
            ConfigError: If the temperature is above zero.
        """
        refuse_sampling(law, "Momentum decoding")

    def rounds(self, session: Session) -> Rounds:
        """Emit one token a round."""
        target, fed = session.target, session.prompt
        repeats = Repeats(session.request.prompt, self._longest)
        while True:
            logits = session.feed(fed, last=1)[:, -1]
            logits = target.law.penalise(widened(logits), target.history.now())
            ids = ranked(logits, self._candidates)
            law = logits.softmax(-1).gather(-1, ids)
            tokens, probabilities = session.read(torch.cat((ids.double(), law.double())))
            scores = [
                probability - self._resistance(repeats.length(int(token)))
                for token, probability in zip(tokens, probabilities, strict=True)
            ]
            token = int(tokens[scores.index(max(scores))])
            repeats.add(token)
            session.commit([token])
            yield session.close()
            fed = to_device([[token]], fed.device)

    def _resistance(self, length: int) -> float:
        if self._alpha == 0:
            return 0.0
        return self._alpha * length if length <= self._longest else math.inf
