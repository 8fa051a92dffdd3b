"""Jacobi decoding: guess a window, let the target correct all of it at once, repeat.

Greedy decoding of n tokens is a triangular system of n equations, each token the argmax after
the ones before it. A Jacobi iteration replaces all n guesses by the target's answers to the
guesses of the iteration before; the first wrong guess is right after it, so that n iterations
always reach the fixed point, which is the greedy text, and lucky guesses reach it sooner. No
guess is kept before everything ahead of it is right.

Santilli et al. 2023, "Accelerating Transformer Inference for Translation via Parallel Decoding";
Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving".
Read in github.com/hao-ai-lab/Consistency_LLM (cllm/cllm_llama_modeling.py, eval/gsm8k/speedup.py):
a block of 16 tokens, the newest correct one and 15 random ones of the text so far; each iteration
commits the right prefix and goes on with the rest of the block alone; a new block begins when
the whole block is right.

Above temperature 0 every position keeps one random number, the same in every iteration and the
same as in plain decoding. Drawing with it is a deterministic function of the law, so that the
iteration has a fixed point there too: the sample that plain decoding would have drawn (Wiggers
and Hoogeboom 2020, "Predictive Sampling with Forecasting Autoregressive Models"). What is
committed was always drawn from the target's law after the committed text: exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.base import Decoder
from specbench.decoding.jacobi.initial import Blanks, CopyLeft, Random
from specbench.decoding.ranges import check_number
from specbench.decoding.session import Rounds, Session
from specbench.errors import ConfigError, did_you_mean
from specbench.rng import Purpose
from specbench.transfer import to_device

INITIAL = ("text", "last", "pad")


class Jacobi(Decoder):
    """Parallel fixed-point decoding of a window.

    Args:
        window: n, tokens that one iteration works on: the newest committed one and n - 1
            guesses. 1 is plain decoding.
        slide: Whether the window is filled up to n after every iteration; otherwise it shrinks
            until the whole block is right, as in the released code.
        initial: What a position is guessed to hold before its first iteration: "text" for
            random tokens of prompt and answer, "last" for the newest token, "pad" for the
            tokenizer's padding token. In a picture, "last" is the left neighbour, the other two
            are random codes, and what the grid forces is guessed.

    Raises:
        ConfigError: If the window is less than one, or `initial` is none of the three.
    """

    def __init__(self, window: int = 16, slide: bool = False, initial: str = "text") -> None:
        check_number("window", window, 1)
        if initial not in INITIAL:
            raise ConfigError(
                f"initial={initial} is not possible",
                f"it is one of {', '.join(INITIAL)}",
                did_you_mean(str(initial), INITIAL),
            )
        self._guesses = window - 1
        self._slide = slide
        self._initial = initial

    def rounds(self, session: Session) -> Rounds:
        """Read the prompt; then guess a window, and commit as far as the target says the same."""
        clock, cache = session.clock, session.target.cache
        logits = session.feed(session.prompt, last=1)[:, -1]
        session.commit(session.read(session.next_token(logits)))
        yield session.close()

        guesses: list[int] = []
        while True:
            left = session.budget
            if self._slide or not guesses:
                missing = min(self._guesses, left) - len(guesses)
                guesses = guesses + self._guess(session, max(missing, 0), guesses)
            guesses = guesses[:left]
            base = cache.lengths[0]
            clock.launch()
            fed = to_device([[session.committed[-1], *guesses]], session.prompt.device)
            clock.lap(Segment.DRAFT)
            answers = _answers(session, session.feed(fed), fed)
            accepted = 0
            while accepted < len(guesses) and guesses[accepted] == answers[accepted]:
                accepted += 1
            cache.truncate([base + accepted + 1])
            session.commit(answers[: accepted + 1])
            session.check_cache()
            count = len(guesses)
            yield session.close(proposed=count, accepted=accepted, nodes=count)
            guesses = answers[accepted + 1 : None if self._slide else count]

    def _guess(self, session: Session, count: int, guesses: Sequence[int]) -> list[int]:
        """Return `count` tokens for positions that no iteration has seen, behind `guesses`."""
        models, request, committed = session.models, session.request, session.committed
        if models.image is not None:
            numbers = request.streams.numbers(len(committed), count, Purpose.INITIAL)
            known = [*committed, *guesses]
            blanks = Blanks(
                known, len(request.prompt), numbers, models.image, choices=request.choices
            )
            part = CopyLeft() if self._initial == "last" else Random()
            return blanks.with_forced(part.guess(blanks).tokens)
        if self._initial == "last":
            return committed[-1:] * count
        if self._initial == "pad":
            padding = getattr(models.tokenizer, "pad_token_id", None)
            return [padding if padding is not None else min(models.stop_ids, default=0)] * count
        numbers = request.streams.numbers(len(committed), count, Purpose.INITIAL)
        return [committed[int(number * len(committed))] for number in numbers]


def _answers(session: Session, logits: Tensor, fed: Tensor) -> list[int]:
    """Return the target's token after each fed one, as plain decoding would choose it.

    Args:
        session: The request.
        logits: [1, T, V].
        fed: [1, T] the newest committed token and the guesses.
    """
    law, position = session.request.law, len(session.committed)
    seen = session.target.history.along(fed[:, 1:], None)
    if law.greedy:
        answers = law.argmax(logits, seen)
    else:
        uniforms = session.request.streams.uniforms(position, fed.shape[1], Purpose.SAMPLE)
        numbers = to_device([uniforms], logits.device, torch.float64)
        answers = session.request.choices.draw(law.probabilities(logits, seen), numbers)
    tokens: list[int] = session.read(answers[0])
    return tokens
