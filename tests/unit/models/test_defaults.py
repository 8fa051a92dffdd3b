"""What a checkpoint's generation defaults ask for is said where a run does not follow it."""

from __future__ import annotations

import pytest

from specbench.law import Law
from specbench.models.defaults import generation_defaults, unfollowed

QWEN = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": 1}
FOLLOWED = Law(temperature=0.6, top_k=20, top_p=0.95)


def said(settings, law):
    return unfollowed(generation_defaults(settings), law)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"eos_token_id": 1, "transformers_version": "5", "max_length": 20},
        {"temperature": 0.6, "top_p": 0.9},  # without do_sample, generate is greedy
        {"repetition_penalty": 1.0, "suppress_tokens": [], "min_length": 0},
    ],
)
def test_defaults_of_no_effect_are_passed_over(settings):
    assert said(settings, Law(temperature=0.0)) == ""


def test_a_followed_default_is_not_mentioned():
    assert said(QWEN, FOLLOWED) == ""
    assert said({"repetition_penalty": 1.3}, Law(temperature=0.0, repetition_penalty=1.3)) == ""


def test_sampling_defaults_are_said_with_the_keys_that_follow_them():
    text = said(QWEN, Law(temperature=0.0))
    assert "temperature=0.6, top_k=20, top_p=0.95" in text
    assert "sampling.temperature=0.6 sampling.top_k=20 sampling.top_p=0.95" in text
    assert "top_p" not in said(QWEN, Law(temperature=1.0, top_p=0.95))


def test_a_penalty_counts_at_any_temperature():
    assert "sampling.repetition_penalty=1.3" in said({"repetition_penalty": 1.3}, Law())


def test_what_no_key_can_follow_is_said_too():
    text = said({"suppress_tokens": [5, 6], "no_repeat_ngram_size": 3}, Law(temperature=0.0))
    assert "suppress_tokens=[5, 6]" in text and "no key for no_repeat_ngram_size" in text
    assert "to follow it" not in text


def test_plain_sampling_is_said_at_temperature_zero():
    assert "do_sample=True" in said({"do_sample": True}, Law(temperature=0.0))
    assert said({"do_sample": True}, Law()) == ""
