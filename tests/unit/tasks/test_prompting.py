"""Prompts are what the benchmark and the tokenizer's chat template say, and never merge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from specbench.errors import TaskError
from specbench.tasks import (
    PromptFormat,
    Sample,
    Task,
    for_tokenizer,
    format_prompt,
    prompt_style,
    trim_answer,
)
from specbench.tasks.base import digest_of, sample_digest, task_digest

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + TEMPLATE
)
SPECIAL = ["<|begin|>", "<|user|>", "<|assistant|>", "<|system|>"]


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    """A small byte-level tokenizer that merges freely and begins every text with a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = ["Question: 12 and 34\nAnswer: 46", "Answer:46 Answer: 46 be brief user assistant"] * 20
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
    )
    return tokenizer


def wrap(backend: Tokenizer, chat_template: str | None) -> Any:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin|>")
    tokenizer.chat_template = chat_template
    return tokenizer


def task(prompt: PromptFormat, **changes: Any) -> Task:
    plain = Task(
        name="t",
        title="T",
        version=1,
        samples=(),
        digest="",
        prompt=prompt,
        stop=("STOP",),
        completion_stop=("\n",),
        max_new_tokens=8,
        scorer=None,
        licence="",
        source="",
    )
    return replace(plain, **changes)


def text_of(ids: list[int], tokenizer: Any) -> str:
    assert all(type(token) is int for token in ids)
    return str(tokenizer.decode(ids))


SAMPLE = Sample("t/0", "t", ("12 {x}", "and 34"), None)


def test_a_chat_prompt_is_the_tokenizers_template(backend: Tokenizer) -> None:
    tokenizer = wrap(backend, TEMPLATE)
    prompt = task(PromptFormat(template="Q {question}!", system="be brief"))
    ids = format_prompt(prompt, SAMPLE, [], 0, tokenizer)
    assert text_of(ids, tokenizer) == "<|system|>be brief<|user|>Q 12 {x}!<|assistant|>"


def test_a_later_turn_follows_the_history(backend: Tokenizer) -> None:
    tokenizer = wrap(backend, TEMPLATE)
    prompt = task(PromptFormat(template="Q {question}!"))
    ids = format_prompt(prompt, SAMPLE, [("12 {x}", "46")], 1, tokenizer)
    expected = "<|user|>Q 12 {x}!<|assistant|>46<|user|>Q and 34!<|assistant|>"
    assert text_of(ids, tokenizer) == expected


def test_worked_examples_stand_before_the_first_turn(backend: Tokenizer) -> None:
    sample = replace(SAMPLE, few_shot=(("1", "2"),))
    chat = wrap(backend, TEMPLATE)
    prompt = task(PromptFormat(template="Q {question}", completion="Q: {question}\nA:"))
    ids = format_prompt(prompt, sample, [], 0, chat)
    assert text_of(ids, chat) == "<|user|>Q 1<|assistant|>2<|user|>Q 12 {x}<|assistant|>"
    plain = wrap(backend, None)
    ids = format_prompt(prompt, sample, [], 0, plain)
    assert text_of(ids, plain) == "<|begin|>Q: 1\nA: 2\n\nQ: 12 {x}\nA:"


def test_a_system_message_joins_the_question_where_the_template_refuses_it(
    backend: Tokenizer,
) -> None:
    tokenizer = wrap(backend, NO_SYSTEM)
    ids = format_prompt(task(PromptFormat(system="be brief")), SAMPLE, [], 0, tokenizer)
    assert text_of(ids, tokenizer) == "<|user|>be brief\n\n12 {x}<|assistant|>"


def test_chat_template_arguments_reach_the_template(backend: Tokenizer) -> None:
    tokenizer = wrap(backend, TEMPLATE + "{% if thinking is false %}no{% endif %}")
    prompt = task(PromptFormat(chat_template_args={"thinking": False}))
    ids = format_prompt(prompt, SAMPLE, [], 0, tokenizer)
    assert text_of(ids, tokenizer).endswith("<|assistant|>no")


def test_completion_begins_as_the_tokenizer_begins_any_text(backend: Tokenizer) -> None:
    tokenizer = wrap(backend, None)
    prompt = task(PromptFormat(completion="Question: {question}\nAnswer:"))
    ids = format_prompt(prompt, SAMPLE, [], 0, tokenizer)
    assert ids == tokenizer("Question: 12 {x}\nAnswer:")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_the_answer_prefix_never_merges_with_the_prompt(backend: Tokenizer, style: str) -> None:
    tokenizer = wrap(backend, TEMPLATE)
    plain = task(PromptFormat(style=style, completion="{question} Answer:"))
    prefixed = task(replace(plain.prompt, answer_prefix="46"))
    prefix = tokenizer("46", add_special_tokens=False)["input_ids"]
    before = format_prompt(plain, SAMPLE, [], 0, tokenizer)
    assert format_prompt(prefixed, SAMPLE, [], 0, tokenizer) == before + prefix


def test_the_style_follows_the_tokenizer_unless_it_is_named(backend: Tokenizer) -> None:
    chat, plain = wrap(backend, TEMPLATE), wrap(backend, None)
    assert prompt_style(PromptFormat(), chat) == "chat"
    assert prompt_style(PromptFormat(), plain) == "completion"
    assert prompt_style(PromptFormat(style="completion"), chat) == "completion"
    with pytest.raises(TaskError, match="no chat template"):
        prompt_style(PromptFormat(style="chat"), plain)


def test_completion_stops_end_completions_only(backend: Tokenizer) -> None:
    original = task(PromptFormat(), digest="d")
    chat = for_tokenizer(original, wrap(backend, TEMPLATE))
    plain = for_tokenizer(original, wrap(backend, None))
    assert (chat.stop, chat.prompt.style) == (("STOP",), "chat")
    assert (plain.stop, plain.prompt.style) == (("STOP", "\n"), "completion")
    assert chat.digest == plain.digest == "d"
    assert for_tokenizer(plain, wrap(backend, None)) == plain


@pytest.mark.parametrize(
    ("stop", "kept"), [((), "a b c"), (("b",), "a "), (("c", "b"), "a "), (("x", ""), "a b c")]
)
def test_an_answer_ends_at_the_earliest_stop(stop: tuple[str, ...], kept: str) -> None:
    assert trim_answer("a b c", stop) == kept


def first_prompt(backend: Tokenizer, template: str, **keys: Any) -> str:
    tokenizer = wrap(backend, template)
    return text_of(format_prompt(task(PromptFormat(**keys)), SAMPLE, [], 0, tokenizer), tokenizer)


def test_a_template_prints_the_tasks_day_whatever_day_it_is(backend: Tokenizer) -> None:
    for clock in ("{{ strftime_now('%d-%m-%Y') }}", "{{ date_string }}"):
        text = first_prompt(backend, clock + TEMPLATE, date="2024-03-05")
        assert text.startswith("05-03-2024<|" if "now" in clock else "05 Mar 2024<|")
    llama = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"
    assert first_prompt(backend, llama + TEMPLATE).startswith("26 Jul 2024<|")
    assert first_prompt(backend, "\n" + llama + TEMPLATE).startswith("\n26 Jul 2024<|")
    plain = first_prompt(backend, "\n " + TEMPLATE)
    assert first_prompt(backend, "\n " + TEMPLATE + "{# strftime_now #}") == plain


IN_PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"
)


def test_a_template_of_parts_gets_parts(backend: Tokenizer) -> None:
    text = first_prompt(backend, IN_PARTS + "<|assistant|>")
    assert text == "<|user|>12 {x}<|assistant|>"


def test_a_prompt_without_its_question_is_refused(backend: Tokenizer) -> None:
    with pytest.raises(TaskError, match="cannot ask this question") as caught:
        first_prompt(backend, "<|user|>{{ messages[0]['content'][:1] }}<|assistant|>")
    assert "does not hold the question" in caught.value.why


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_thinking_is_switched_by_the_templates_own_variable(backend: Tokenizer, name: str) -> None:
    template = TEMPLATE + f"{{% if {name} is defined %}}{{{{ {name} }}}}{{% endif %}}"
    for value in (True, False):
        assert first_prompt(backend, template, thinking=value).endswith(f"<|assistant|>{value}")
    assert first_prompt(backend, template).endswith("<|assistant|>")


def test_a_switch_that_nothing_reads_is_refused(backend: Tokenizer) -> None:
    asked = task(PromptFormat(thinking=True))
    with pytest.raises(TaskError, match="no switch for reasoning"):
        for_tokenizer(asked, wrap(backend, TEMPLATE))
    with pytest.raises(TaskError, match="nothing to switch"):
        for_tokenizer(asked, wrap(backend, None))


def test_younger_keys_leave_the_digests_of_older_protocols_alone() -> None:
    digests = {
        task_digest(1, PromptFormat(**keys), (), (), (SAMPLE,))
        for keys in ({}, {"thinking": True}, {"thinking": False}, {"date": "2025-01-01"})
    }
    assert len(digests) == 4
    form = {key: getattr(PromptFormat(), key) for key in OLD_KEYS}
    old = digest_of([1, form, [], [], [sample_digest(SAMPLE)]])
    assert task_digest(1, PromptFormat(), (), (), (SAMPLE,)) == old


OLD_KEYS = (
    *("style", "system", "template", "completion", "separator", "answer_prefix"),
    "chat_template_args",
)
