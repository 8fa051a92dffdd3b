"""Errors that a user can cause can always be printed, whatever they quote."""

from __future__ import annotations

import pickle

from specbench.errors import UsageError, printable


def test_half_a_character_is_printed_as_its_escape() -> None:
    error = UsageError("name \ud800", "byte \udcff", "fix \udfff")
    assert error.what == r"name \ud800"
    assert str(error).encode().splitlines() == [rb"name \ud800", rb"byte \udcff", rb"fix \udfff"]
    assert error.args == (r"name \ud800",)


def test_all_other_text_stays_as_it_is() -> None:
    assert printable("größer 🏴 \n") == "größer 🏴 \n"


def test_control_characters_are_shown() -> None:
    assert printable("a\x00b") == "a\u2400b"


def test_an_error_survives_the_way_between_processes() -> None:
    back = pickle.loads(pickle.dumps(UsageError("what", "why", "fix")))
    assert (type(back), back.what, back.why, back.fix) == (UsageError, "what", "why", "fix")
