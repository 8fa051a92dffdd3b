"""Prompt and answer are tokenised the same way in training and in use."""

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer

from specbench.zoo.tokenizer import (
    ASSISTANT,
    BEGIN,
    END,
    PAD,
    USER,
    VOCABULARY_SIZE,
    save_tokenizer,
    segments,
)
from specbench.zoo.worlds import WORLDS


def _messages(sample) -> list[dict[str, str]]:
    messages = []
    for turn, answer in zip(sample.turns, sample.answers, strict=True):
        messages.append({"role": "user", "content": turn})
        messages.append({"role": "assistant", "content": answer})
    return messages


@pytest.mark.parametrize("task", WORLDS)
def test_no_merge_crosses_the_boundary(task: str, tokenizer) -> None:
    for index in range(50):
        sample = WORLDS[task].generate(random.Random(f"boundary/{index}"))
        parts = segments(sample)
        apart = [token for part in parts for token in tokenizer.encode(part.text)]
        together = tokenizer.encode("".join(part.text for part in parts))
        assert apart == together
        messages = _messages(sample)
        template = {"return_dict": False}
        assert tokenizer.apply_chat_template(messages, **template) == together
        for turn in range(len(sample.turns)):
            prompt = tokenizer.apply_chat_template(
                messages[: 2 * turn + 1], add_generation_prompt=True, **template
            )
            assert prompt == together[: len(prompt)]
            answer = tokenizer.encode(sample.answers[turn] + END)
            assert together[len(prompt) : len(prompt) + len(answer)] == answer


def test_text_survives_a_round_trip(tokenizer) -> None:
    text = "def f(xs):\n    if x:\n        return 12\n\tTab é 3.5  two spaces\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_digit_is_one_token(tokenizer) -> None:
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("12 + 345"))
    assert [piece for piece in pieces if piece.isdigit()] == list("12345")
    longer = [t for t in tokenizer.get_vocab() if any(c.isdigit() for c in t) and len(t) > 1]
    assert longer == []


def test_indentation_is_cheap(tokenizer) -> None:
    assert len(tokenizer.encode("\n        total")) == 2
    assert len(tokenizer.encode("    return")) == 2


def test_special_tokens_come_first(tokenizer) -> None:
    special = [PAD, BEGIN, USER, ASSISTANT, END]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 4]
    assert len(tokenizer) <= VOCABULARY_SIZE
    assert tokenizer.decode(tokenizer.encode(f"{BEGIN}a{END}"), skip_special_tokens=True) == "a"


def test_loads_as_an_ordinary_tokenizer(tokenizer, tmp_path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    text = f"{BEGIN}{USER}Ana has 15 pens.\n    return x{ASSISTANT}"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.chat_template == tokenizer.chat_template
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == (PAD, BEGIN, END)
