"""Keep tokens, passwords and keys out of everything that is written.

A result file is made to be shared, and it carries its command line, its configuration and the
errors of failed samples. Whatever the store writes passes through here, so that no caller can
forget it. A secret is known by the name it goes by (a key, a flag, a variable of the
environment), by its place in an address, or by the shape that its issuer gave it.

What a model generated is never touched: it is the measurement.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"
"""What stands in the place of a secret."""

_NAME = re.compile(
    r"(?:^|[._\-])(?P<of>[a-z0-9]+[_-])?"
    r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|secret[_-]?key|access[_-]?key"
    r"(?:[_-]id)?|private[_-]?key|credentials?|authorization|auth|bearer)$",
    re.IGNORECASE,
)
_OF_A_VOCABULARY = frozenset(
    ("begin", "bonus", "bos", "cls", "draft", "end", "eos", "first", "image", "last", "mask")
    + ("new", "next", "pad", "sep", "stop", "target", "unk")
)
"""Words before `token` that name an entry of a vocabulary, such as `stop_token`."""

_PATTERNS = (
    # user and password of an address
    (re.compile(r"(?P<keep>\b[a-z][a-z0-9+.\-]*://)[^/\s@'\"]+(?=@)", re.IGNORECASE), r"\g<keep>"),
    # a signed or keyed address
    (
        re.compile(
            r"(?P<keep>[?&;][\w.\-]*(?:token|secret|passw(?:or)?d|key|signature|sig|credential|auth)"
            r"=)[^&;\s#'\"]+",
            re.IGNORECASE,
        ),
        r"\g<keep>",
    ),
    (re.compile(r"(?P<keep>\b(?:bearer|basic)\s+)[\w\-.~+/]{8,}=*", re.IGNORECASE), r"\g<keep>"),
    # the shapes of well-known issuers
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w\-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}"
            r"|github_pat_\w{16,}|glpat-[\w\-]{16,}|xox[abeoprs]-[\w\-]{10,}"
            r"|A[KS]IA[0-9A-Z]{16}|AIza[\w\-]{30,}"
            r"|eyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]{8,})"
        ),
        "",
    ),
    # `token: value` and `password=value` inside of a sentence
    (
        re.compile(
            r"(?P<keep>\b(?:hf_token|api[_-]?key|access[_-]?token|auth[_-]?token|passw(?:or)?d"
            r"|secret)\s*[=:]\s*['\"]?)(?!\*{3})[^\s'\",;&#]+",
            re.IGNORECASE,
        ),
        r"\g<keep>",
    ),
)
_MESSAGES = ("error", "score_detail")
"""Columns of a result row that hold words about a measurement, not the measurement."""

_SHORTEST = 8
"""Characters of the shortest value of the environment that is looked for inside of texts."""


def names_a_secret(key: str) -> bool:
    """Return whether a key, a flag or a variable's name says that its value is secret."""
    found = _NAME.search(key.strip())
    if found is None:
        return False
    before = (found["of"] or "").rstrip("_-").lower()
    return not (key.lower().endswith("token") and before in _OF_A_VOCABULARY)


def scrub(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Return a plain value (mappings, lists, texts, numbers) with its secrets hidden.

    Args:
        value: What will be written.
        environment: Where secret values are looked up by name; None means this process's own.
    """
    return _scrub(value, _secret_values(os.environ if environment is None else environment))


def scrub_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result row whose messages hold no secrets; what was generated stays as it is."""
    plain = dict(row)
    for name in _MESSAGES:
        if plain.get(name):
            plain[name] = scrub(plain[name])
    return plain


def scrub_command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the words of a command line with the secrets hidden.

    `key=value`, `--key=value` and `--key value` lose the value of a key that names a secret;
    all words lose what `scrub` finds.
    """
    values = _secret_values(os.environ if environment is None else environment)
    out: list[str] = []
    follows = False
    for word in words:
        key, sign, _ = word.partition("=")
        if follows and not word.startswith("-"):
            out.append(HIDDEN)
        elif sign and names_a_secret(key.lstrip("+~")):
            out.append(f"{key}={HIDDEN}")
        else:
            out.append(_text(word, values))
        follows = not sign and word.startswith("--") and names_a_secret(word)
    return out


def _secret_values(environment: Mapping[str, str]) -> list[str]:
    """Return the values of the environment's secrets, longest first."""
    found = {
        value
        for name, value in environment.items()
        if len(value) >= _SHORTEST and names_a_secret(name)
    }
    return sorted(found, key=len, reverse=True)


def _scrub(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _text(value, secrets)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN
            if isinstance(item, str) and item and names_a_secret(str(key))
            else _scrub(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_scrub(item, secrets) for item in value]
    return value


def _text(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, kept in _PATTERNS:
        text = pattern.sub(kept + HIDDEN, text)
    return text
