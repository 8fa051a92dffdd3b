"""The answer of a model that thinks aloud: what stands behind its reasoning.

Models mark their thoughts in a handful of ways: `<think>` blocks (DeepSeek R1, Qwen3 and most
others), `[THINK]` (Magistral), and channels (gpt-oss: an `analysis` channel before the `final`
one). A chat template may write the opening mark itself, so a closing mark alone ends a thought
that began with the answer's first character.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from specbench.tasks.base import Sample, Score, Scorer

UNFINISHED = "unfinished: it ended inside its reasoning"
"""The detail of a score where no answer stands behind the reasoning."""

_NAMES = "think|thinking|thought|reasoning|reflection|seed:think"
_MARK = re.compile(
    rf"<(?P<close>/?)(?:{_NAMES})>|\[(?P<bracket>/?)THINK\]|<\|(?P<word>begin|end)_of_thought\|>",
    re.IGNORECASE,
)
_OPENED = re.compile(rf"(?:<(?:{_NAMES})>|\[THINK\]|<\|begin_of_thought\|>)\s*\Z", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_SPECIAL = re.compile(r"<\|(?:end|return|start|call)\|>.*", re.DOTALL)


class Spoken(NamedTuple):
    """An answer without its reasoning.

    Attributes:
        text: What stands behind the reasoning; empty where it is unfinished.
        unfinished: Whether the text ended inside its reasoning.
    """

    text: str
    unfinished: bool


def spoken(answer: str, *, thinking: bool = False) -> Spoken:
    """Return the part of an answer that is meant for the reader.

    Args:
        answer: What the model wrote.
        thinking: Whether the prompt opened a thought, so that a text without a closing mark is
            all reasoning.
    """
    channels = list(_CHANNEL.finditer(answer))
    if channels:
        last = channels[-1]
        if last.group(1) != "final":
            return Spoken("", True)
        return Spoken(_SPECIAL.sub("", answer[last.end() :]), False)
    depth, end = 0, None
    for mark in _MARK.finditer(answer):
        if mark["close"] or mark["bracket"] or mark["word"] == "end":
            closes = depth or (thinking and end is None)
            if not closes and not _SPECIAL.sub("", answer[mark.end() :]).strip():
                answer = answer[: mark.start()]  # it ends no thought and nothing follows it
                break
            depth, end = 0, mark.end()
        elif depth == 0 and end is None and answer[: mark.start()].strip():
            continue  # words about a mark: reasoning stands at the beginning
        else:
            depth = 1
    if depth or (thinking and end is None):
        return Spoken("", True)
    return Spoken(answer if end is None else answer[end:], False)


def opens_thought(prompt: str) -> bool:
    """Say whether a prompt ends with the mark that begins a thought."""
    return _OPENED.search(prompt) is not None


def readable(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return an answer as text, without special tokens but for those that mark reasoning."""
    text: str = tokenizer.decode(tokens, skip_special_tokens=True)
    special = set(tokenizer.all_special_ids)
    if special.isdisjoint(tokens):
        return text
    kept = list(tokens)
    while kept and kept[-1] in special:
        kept.pop()
    whole: str = tokenizer.decode(kept)
    marked = any(len(mark.findall(whole)) > len(mark.findall(text)) for mark in (_MARK, _CHANNEL))
    return whole if marked else text


def score_answers(
    scorer: Scorer, sample: Sample, answers: Sequence[str], *, thinking: bool = False
) -> Score:
    """Score the answers to a sample's turns without their reasoning.

    Args:
        scorer: The sample's scorer.
        sample: What was asked.
        answers: What the model wrote, turn by turn.
        thinking: Whether the last prompt opened a thought.

    Returns:
        The scorer's verdict; 0 with the detail `UNFINISHED` where the last answer ended inside
        its reasoning.
    """
    if not answers:
        return scorer.score(sample, answers)
    said = [spoken(answer) for answer in answers[:-1]] + [spoken(answers[-1], thinking=thinking)]
    if said[-1].unfinished:
        return Score(0.0, UNFINISHED)
    return scorer.score(sample, [each.text for each in said])
