"""Grammar-constrained decoding: plain decoding over the tokens that a grammar allows."""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.clock import Clock
from specbench.decoding.base import Decoder
from specbench.decoding.constraints.base import Constraint, Grammar, Matcher
from specbench.decoding.constraints.grammar import read_grammar
from specbench.decoding.request import Request
from specbench.decoding.session import Rounds, Session
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair


class Constrained(Decoder):
    """Grammar-constrained decoding (GCD).

    In every step the tokens that would leave the grammar are masked, and the next token follows
    the law of the rest; at temperature 0 it is the most probable allowed token. Masking comes
    before temperature, top-k and top-p, as in the logits processor of
    github.com/ebmoon/transformers-GAD (generation/logits_process.py), so that truncation never
    leaves a step without a token. The answer parses, unless the length limit cuts it; but its
    law is not the target's law of answers that parse (Park et al. 2024, arXiv:2405.21047), which
    `ASAp` and `AdaptiveRejection` approach.

    The mask is computed on the host while an accelerator is busy with the forward. The grammar
    is bound to the tokenizer in `prepare`. A model without a tokenizer has no text, and its
    tokens are not constrained.

    Args:
        grammar: "regex:EXPRESSION", "lark:FILE", "json_schema:FILE", a grammar of another make,
            or None for plain decoding.

    Raises:
        ConfigError: If the grammar cannot be read or is not valid.
    """

    def __init__(self, grammar: str | Grammar | None) -> None:
        self._grammar = read_grammar(grammar)
        self._bound: tuple[object, object] | None = None
        self._constraint: Constraint | None = None

    def prepare(self, models: ModelPair) -> None:
        """Bind the grammar to the target's vocabulary.

        Raises:
            SpecbenchError: If the grammar cannot be used with it.
        """
        pair = (models.target, models.tokenizer)
        if self._grammar is None or self._bound == pair:
            return
        self._constraint = self._grammar.bind(models)
        self._bound = pair

    def inputs(self) -> dict[str, str]:
        """Return the digest of the grammar."""
        return {"grammar": self._grammar.digest()} if self._grammar is not None else {}

    def open(self, models: ModelPair, request: Request, clock: Clock) -> Session:
        """Begin a request, with the grammar bound to its models."""
        self.prepare(models)
        return super().open(models, request, clock)

    def rounds(self, session: Session) -> Rounds:
        """Emit one allowed token a round."""
        matcher = self._constraint.start() if self._constraint else None
        fed = session.prompt
        while True:
            logits = session.feed(fed, last=1)[:, -1]
            if matcher is not None:
                logits = masked(logits, matcher)
            token = session.next_token(logits)
            (chosen,) = session.read(token)
            session.commit([chosen])
            yield session.close()
            if matcher is not None:
                matcher.advance(chosen)
            fed = token[:, None]


def masked(logits: Tensor, matcher: Matcher) -> Tensor:
    """Return logits [1, V] with minus infinity at the tokens that may not come next."""
    return logits.masked_fill(~matcher.allowed(), -torch.inf)


def refuse_greedy(law: Law, method: str) -> None:
    """Refuse temperature 0 for a method that is about sampling.

    Args:
        law: The target's law.
        method: What the method is called, as the subject of a sentence.

    Raises:
        ConfigError: If the law is greedy.
    """
    if law.greedy:
        raise ConfigError(
            f"{method} cannot run at temperature 0",
            "it corrects the law of constrained samples, and argmax has no law to correct",
            "Set sampling.temperature above 0, or choose method=gcd.",
        )
