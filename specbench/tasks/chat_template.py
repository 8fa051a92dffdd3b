"""A tokenizer's chat template: the same prompt on every day, with the whole question in it.

Templates differ in what they read. Some print the day, which would change a prompt overnight; some
take a message's content as a list of parts and print nothing of a plain text; some switch the
model's reasoning by a variable.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from specbench.errors import TaskError
from specbench.schema.task import PromptFormat

Message = Mapping[str, str]

_SWITCHES = ("enable_thinking", "thinking")
_DIRECTIVES = ("%Y", "%y", "%m", "%d", "%B", "%b", "%A", "%a", "%H", "%M", "%S", "%j")
_CLOCK = "strftime_now"
_PRINTED_PART = "{'type': 'text'"


class ChatTemplate:
    """The chat template of a tokenizer under a task's prompt format.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        prompt: The task's format.

    Raises:
        TaskError: If the format switches reasoning and the template has no switch.
    """

    def __init__(self, tokenizer: Any, prompt: PromptFormat) -> None:
        self._tokenizer = tokenizer
        self._source: str = tokenizer.get_chat_template()
        day = datetime.date.fromisoformat(prompt.date)
        variables: dict[str, Any] = {"date_string": day.strftime("%d %b %Y")}
        if prompt.thinking is not None:
            names = [name for name in _SWITCHES if name in self._source]
            if not names:
                raise TaskError(
                    "The model's chat template has no switch for reasoning",
                    f"task.prompt.thinking={str(prompt.thinking).lower()}, and the template reads "
                    f"neither of {', '.join(_SWITCHES)}",
                    "Set task.prompt.thinking=null, or give the template's own variable in "
                    "task.prompt.chat_template_args.",
                )
            variables |= dict.fromkeys(names, prompt.thinking)
        self._variables = {**variables, **prompt.chat_template_args}
        if _CLOCK in self._source:
            self._source = _stopped_clock(day) + self._source

    def render(self, messages: Sequence[Message], question: str) -> str:
        """Return the prompt of a conversation.

        Args:
            messages: With plain texts as contents.
            question: The last one's content, which the prompt must hold.

        Raises:
            TaskError: If the prompt does not, however the content is given, or the template
                refuses the conversation.
        """
        reasons = []
        for given in (messages, [_in_parts(message) for message in messages]):
            try:
                text = self._rendered(given)
            except Exception as error:  # a template is a program of its own
                reasons.append(" ".join(str(error).split())[:200] or type(error).__name__)
                continue
            printed = given is not messages and _PRINTED_PART in text
            if question.strip() in text and not printed:
                return text
            reasons.append("the prompt that it makes does not hold the question")
        raise TaskError(
            "The model's chat template cannot ask this question",
            reasons[0],
            "Give another template (model.chat_template=FILE), or set "
            "task.prompt.style=completion.",
        )

    def accepts_system(self) -> bool:
        """Whether it takes a system message; some raise an error at one."""
        probe = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
        for messages in (probe, [_in_parts(message) for message in probe]):
            try:
                self._rendered(messages)
            except Exception:
                continue
            return True
        return False

    def _rendered(self, messages: Sequence[Mapping[str, Any]]) -> str:
        text: str = self._tokenizer.apply_chat_template(
            list(messages),
            chat_template=self._source,
            tokenize=False,
            add_generation_prompt=True,
            **self._variables,
        )
        return text


def _in_parts(message: Message) -> dict[str, Any]:
    """Return a message whose content is a list of one text."""
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _stopped_clock(day: datetime.date) -> str:
    """Return a macro that stands in the place of transformers' clock and knows one day only."""
    moment = datetime.datetime.combine(day, datetime.time())
    replaced = "".join(f".replace('{each}', '{moment.strftime(each)}')" for each in _DIRECTIVES)
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro +%}}"
