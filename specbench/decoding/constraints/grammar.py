"""Grammars over text: regular expressions, context-free grammars and JSON schemas.

The library llguidance turns each of them into an Earley parser over bytes and answers which
tokens keep the text inside the grammar; every tokenisation of a valid text is allowed. Grammars
are read and checked when a decoder is built, before any model is loaded.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from specbench.bounded import read_text
from specbench.decoding.constraints.base import DeadEnd, Grammar
from specbench.errors import ConfigError, ModelError, did_you_mean
from specbench.models.pair import ModelPair
from specbench.transfer import moved, to_device

KINDS = ("regex", "lark", "json_schema")
"""regex: the expression itself, over the whole answer; lark, json_schema: a file's path."""

LARGEST_GRAMMAR = 1 << 22
"""Bytes of the largest file that is read as a grammar."""

_FORMS = "regex:EXPRESSION, lark:FILE, json_schema:FILE, or null for no constraint"


def read_grammar(grammar: str | Grammar | None) -> Grammar | None:
    """Turn the value of a `grammar` parameter into a grammar.

    Args:
        grammar: "KIND:TEXT" with one of `KINDS`, a grammar of another make, or None.

    Raises:
        ConfigError: If the kind is unknown, the file cannot be read, or the library refuses the
            grammar; its message gives the place and the reason.
    """
    if grammar is None or not isinstance(grammar, str):
        return grammar
    kind, separator, text = grammar.partition(":")
    if not separator or kind not in KINDS:
        advice = did_you_mean(kind, KINDS) or "Set method.grammar to one of these forms."
        raise ConfigError(f"grammar='{grammar}' is not a grammar", f"allowed are {_FORMS}", advice)
    return TextGrammar(kind, text if kind == "regex" else _file(kind, text))


def _file(kind: str, path: str) -> str:
    try:
        return read_text(Path(path).expanduser(), LARGEST_GRAMMAR)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot read the {kind} grammar '{path}'",
            str(reason),
            "Give the path of a UTF-8 text file, relative to the current folder.",
        ) from error


class TextGrammar:
    """A grammar that the library has accepted.

    Args:
        kind: One of `KINDS`.
        text: The expression, the grammar or the schema.

    Raises:
        ConfigError: If the library refuses it.
    """

    def __init__(self, kind: str, text: str) -> None:
        from llguidance import LLMatcher

        compilers = {
            "regex": LLMatcher.grammar_from_regex,
            "lark": LLMatcher.grammar_from_lark,
            "json_schema": LLMatcher.grammar_from_json_schema,
        }
        self._compiled: str = compilers[kind](text)
        failed, messages = LLMatcher.validate_grammar_with_warnings(self._compiled)
        if failed:
            raise ConfigError(
                f"The {kind} grammar is not valid",
                "\n".join(message.strip() for message in messages),
                "Correct it, or set method.grammar=null for no constraint.",
            )

    def digest(self) -> str:
        """Return a hash of the compiled grammar."""
        return hashlib.sha256(self._compiled.encode()).hexdigest()[:16]

    def bind(self, models: ModelPair) -> GrammarConstraint | None:
        """Return the constraint over the target's tokens, or None where it has no text.

        Raises:
            ModelError: If the library cannot read the tokenizer.
        """
        if models.tokenizer is None:
            return None
        stops = models.stop_ids or frozenset({models.tokenizer.eos_token_id})
        width = models.target.vocab_size
        tokenizer = _tokenizer(models.tokenizer, width, tuple(sorted(stops)))
        return GrammarConstraint(self._compiled, tokenizer, stops, width, models.target.device)


@lru_cache(maxsize=4)
def _tokenizer(tokenizer: Any, width: int, stops: tuple[int, ...]) -> Any:
    """Return the library's view of a tokenizer; large ones take about a second."""
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, n_vocab=max(width, len(tokenizer)), eos_token=list(stops))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(
            "The model's tokenizer cannot be constrained by a grammar",
            str(error),
            "Choose a model with a fast tokenizer, or set method.grammar=null.",
        ) from error


class GrammarConstraint:
    """A grammar over the tokens of one model.

    Args:
        compiled: The library's form of the grammar.
        tokenizer: The library's view of the tokenizer.
        stops: Tokens that end an answer.
        width: V.
        device: Where masks are wanted.

    Raises:
        ConfigError: If the grammar exceeds the library's limits.
    """

    def __init__(
        self,
        compiled: str,
        tokenizer: Any,
        stops: frozenset[int],
        width: int,
        device: torch.device,
    ) -> None:
        from llguidance import LLMatcher

        self._matcher = LLMatcher(tokenizer, compiled)
        if self._matcher.is_error():
            raise ConfigError(
                "The grammar cannot be used",
                self._matcher.get_error().strip(),
                "Simplify it, or set method.grammar=null for no constraint.",
            )
        self._vocabulary = _Vocabulary(stops, width, device)

    def start(self) -> GrammarMatcher:
        """Return a walk that stands before the first token of an answer."""
        return GrammarMatcher(self._matcher.deep_copy(), self._vocabulary)


class _Vocabulary:
    """What all walks share: the stop tokens, and how a mask reaches the device.

    Attributes:
        stops: Tokens that end an answer.
        only_stops: [V] bool, True at them.
    """

    def __init__(self, stops: frozenset[int], width: int, device: torch.device) -> None:
        self.stops = stops
        self.only_stops = torch.zeros(width, dtype=torch.bool, device=device)
        self.only_stops[sorted(stops)] = True
        self._width = width
        self._bits = to_device([1 << bit for bit in range(8)], device, torch.uint8)

    def spread(self, mask: bytes) -> Tensor:
        """Return the library's bitmask as [V] bool; an eighth of the bytes travels."""
        packed = torch.frombuffer(bytearray(mask), dtype=torch.uint8)
        packed = moved(packed, self._bits.device)
        return (packed[:, None] & self._bits).flatten()[: self._width] != 0


class GrammarMatcher:
    """One walk through a grammar; see `Matcher`.

    Stop tokens are answered here and never reach the library, which would let text follow them,
    and which does not recognise them once the grammar admits no further text.

    Args:
        matcher: The library's matcher, owned by this walk.
        vocabulary: What all walks share.
        text: Number of tokens so far that are no stop tokens.
        ended: Number of stop tokens behind them.
    """

    def __init__(
        self, matcher: Any, vocabulary: _Vocabulary, text: int = 0, ended: int = 0
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._text = text
        self._ended = ended

    def allowed(self) -> Tensor:
        """Return which tokens may come next, [V] bool.

        Raises:
            DeadEnd: If none may, because no token spells what the grammar wants.
        """
        if self._ended:
            return self._vocabulary.only_stops
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error() or not any(mask):
            why = self._matcher.get_error() or "no token of the vocabulary stays in the grammar"
            raise DeadEnd(self._text, why.strip())
        return self._vocabulary.spread(mask)

    def accepts(self, token: int) -> bool:
        """Say whether one token may come next."""
        if token in self._vocabulary.stops:
            return bool(self._ended or self._matcher.is_accepting())
        return not self._ended and self._matcher.validate_tokens([token]) == 1

    def advance(self, token: int) -> None:
        """Append a token that may come next."""
        if token in self._vocabulary.stops:
            self._ended += 1
            return
        consumed = self._matcher.consume_token(token)
        assert consumed and not self._ended, self._matcher.get_error()
        self._text += 1

    def rollback(self, count: int) -> None:
        """Forget the last `count` tokens."""
        stops = min(count, self._ended)
        self._ended -= stops
        if count > stops:
            assert self._matcher.rollback(count - stops), self._matcher.get_error()
            self._text -= count - stops

    def clone(self) -> Self:
        """Return an independent walk that stands at the same place."""
        copy = self._matcher.deep_copy()
        return type(self)(copy, self._vocabulary, self._text, self._ended)
