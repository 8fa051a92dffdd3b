"""From a sample's turns to the token ids that a model continues.

Chat templates come from the tokenizer. An answer prefix is tokenised apart from the prompt, and
an answer always begins at a token of its own, so nothing merges across that boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from specbench.errors import TaskError
from specbench.schema.task import PromptFormat, Style
from specbench.tasks.base import Sample, Task
from specbench.tasks.chat_template import ChatTemplate


def prompt_style(prompt: PromptFormat, tokenizer: Any) -> Style:
    """Return "chat" or "completion": what `prompt.style` means for this tokenizer.

    Raises:
        TaskError: If a chat is asked for and the tokenizer has no chat template.
    """
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if prompt.style == "chat" and not has_template:
        raise TaskError(
            "The task asks for a chat, the model has no chat template",
            "its tokenizer comes without one",
            "Set task.prompt.style=completion, or give the model a chat template.",
        )
    if prompt.style == "auto":
        return "chat" if has_template else "completion"
    return prompt.style


def for_tokenizer(task: Task, tokenizer: Any) -> Task:
    """Return the task with its prompt style settled and with the stop strings of that style.

    The digest stays: it covers both styles.

    Raises:
        TaskError: If a chat is asked for and the tokenizer has no chat template, or reasoning is
            switched and nothing reads the switch.
    """
    style = prompt_style(task.prompt, tokenizer)
    if style == "chat":
        ChatTemplate(tokenizer, task.prompt)
    elif task.prompt.thinking is not None:
        raise TaskError(
            "task.prompt.thinking has nothing to switch",
            "the prompt is plain text, without a chat template",
            "Set task.prompt.thinking=null, or ask in a chat (task.prompt.style=chat).",
        )
    stop = task.stop if style == "chat" else task.stop + task.completion_stop
    return replace(task, prompt=replace(task.prompt, style=style), stop=stop, completion_stop=())


def trim_answer(text: str, stop: Sequence[str]) -> str:
    """Return the text up to the earliest stop string."""
    places = [place for place in (text.find(string) for string in stop if string) if place >= 0]
    return text[: min(places, default=len(text))]


def format_prompt(
    task: Task,
    sample: Sample,
    history: Sequence[tuple[str, str]],
    turn: int,
    tokenizer: Any,
) -> list[int]:
    """Return the prompt of one turn as token ids.

    Args:
        task: Whose prompt format is used.
        sample: Whose turn is asked.
        history: (user, assistant) texts of the earlier turns, the user's before any template.
        turn: Index of the turn to ask.
        tokenizer: A transformers tokenizer.
    """
    assert len(history) == turn < len(sample.turns), (len(history), turn, len(sample.turns))
    pairs = [*sample.few_shot, *history]
    if prompt_style(task.prompt, tokenizer) == "chat":
        ids = _chat_ids(task.prompt, pairs, sample.turns[turn], tokenizer)
    else:
        text = _completion_text(task.prompt, pairs, sample.turns[turn])
        ids = _ids(tokenizer(text))
    if task.prompt.answer_prefix:
        ids = ids + _ids(tokenizer(task.prompt.answer_prefix, add_special_tokens=False))
    return ids


def _chat_ids(
    prompt: PromptFormat, pairs: Sequence[tuple[str, str]], question: str, tokenizer: Any
) -> list[int]:
    messages = []
    for user, assistant in pairs:
        messages.append({"role": "user", "content": _fill(prompt.template, user)})
        messages.append({"role": "assistant", "content": assistant})
    asked = _fill(prompt.template, question)
    messages.append({"role": "user", "content": asked})
    template = ChatTemplate(tokenizer, prompt)
    system = prompt.system
    if system and not template.accepts_system():
        messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
        system = None
    if system:
        messages.insert(0, {"role": "system", "content": system})
    text = template.render(messages, asked)
    return _ids(tokenizer(text, add_special_tokens=False))


def _completion_text(prompt: PromptFormat, pairs: Sequence[tuple[str, str]], question: str) -> str:
    parts = []
    for user, assistant in pairs:
        asked = _fill(prompt.completion, user) + prompt.answer_prefix
        gap = "" if not assistant or asked[-1:].isspace() or assistant[0].isspace() else " "
        parts.append(asked + gap + assistant + prompt.separator)
    return "".join(parts) + _fill(prompt.completion, question)


def _fill(template: str, question: str) -> str:
    return template.replace("{question}", question)


def _ids(encoded: Any) -> list[int]:
    """Return plain token ids from what any version of a tokenizer returns."""
    ids = encoded if isinstance(encoded, list) else encoded["input_ids"]
    if ids and isinstance(ids[0], list):
        ids = ids[0]
    return [int(token) for token in ids]
