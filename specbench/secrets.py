"""Keep tokens, passwords and keys out of everything that is written.

A result file is made to be shared, and it carries its command line, its configuration and the
errors of failed samples. Whatever the store writes and the command line prints as an error passes
through here, so that no caller can forget it. A secret is known by the name it goes by (a key, a
flag, a variable of the environment), by its place in an address or a header, or by the shape that
its issuer gave it.

What a model generated is never touched: it is the measurement.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from specbench.secret_shapes import ISSUERS, PLACES

HIDDEN = "***"
"""What stands in the place of a secret."""

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_SECRET_WORDS = frozenset(
    ("token", "secret", "secrets", "password", "passwords", "passwd", "pwd", "passphrase")
    + ("passcode", "credential", "credentials", "authorization", "auth", "bearer", "cookie")
    + ("apikey", "jwt", "webhook")
)
_GLUED = re.compile(
    r"(?:password|passwd|passphrase|apikey|(?:auth|access|refresh|id|session)token"
    r"|(?:secret|access|private)key|clientsecret)$"
)
_BEFORE_KEY = frozenset(
    ("access", "account", "admin", "anthropic", "api", "auth", "deploy", "encryption", "function")
    + ("license", "master", "openai", "private", "secret", "service", "shared", "signing", "ssh")
    + ("storage", "stripe", "subscription", "webhook", "write")
)
_BEFORE_PASS = frozenset(
    ("admin", "auth", "db", "email", "ftp", "http", "ldap", "mail", "mysql", "proxy", "redis")
    + ("registry", "root", "smtp", "sudo", "user")
)
_BEFORE_PAT = frozenset(("ado", "azure", "devops", "gh", "github", "gitlab", "snowflake"))
_OF_A_VOCABULARY = frozenset(
    ("begin", "bonus", "bos", "cls", "draft", "end", "eos", "first", "image", "last", "mask")
    + ("new", "next", "pad", "per", "sep", "stop", "target", "unk")
)
"""Words before `token` that name an entry of a vocabulary, such as `stop_token`."""

_ASSIGNMENT = re.compile(
    r"(?P<key>(?<![\w.\-])(?:(?:api|access|secret|private|client|auth) (?:key|secret|token)"
    r"|(?:--?)?[A-Za-z_][\w.\-]*))"
    r"(?P<sign>\\*[\"']?[ \t]*(?:=>|:=|==?|:)\s*(?:\\*(?P<quote>[\"'`]))?)"
    r"(?!\\*[\"'`]?\*{3})(?P<value>(?(quote)[^\"'`\\\r\n]+|(?!\\)[^\s\"',;&()\[\]{}<>]+))",
    re.IGNORECASE,
)
"""`key: value`, `key=value` and `"key": "value"` inside of a text."""

_FLAG = re.compile(r"(?P<key>(?<!\S)--[A-Za-z][\w.\-]*)(?P<sign>\s+['\"]?)(?!-|\*{3})[^\s'\"]+")
_ELEMENT = re.compile(r"(?P<sign><(?P<key>[\w:.\-]+)>)(?!\*{3})[^<]+(?=</)")
_NO_VALUES = frozenset(
    ("str", "int", "bool", "bytes", "float", "string", "none", "null", "true", "false", "any")
    + ("optional", "list", "dict", "the", "a", "an", "is", "was", "are", "not", "no", "must")
    + ("missing", "required", "invalid", "unset", "empty", "expired", "unknown", "for", "of")
)
"""What follows a secret's name and is none: types of a signature, words of a sentence."""

_WORDS_OF_SENTENCES = frozenset(("token", "secret", "secrets", "auth", "cookie", "bearer"))
"""Names that stand before a colon in ordinary sentences and code too."""

_MESSAGES = ("error", "score_detail", "score_name", "model", "task", "category", "sample_id")
"""Columns of a result row that hold words about a measurement, not the measurement."""

_FOLDERS = frozenset(("PWD", "OLDPWD"))
"""Variables in which a shell keeps folders; `pwd` is a password elsewhere."""

_SHORTEST = 8
"""Characters of the shortest value of the environment that is looked for inside of texts."""

_SHORT = 128
"""Characters up to which a text, such as the name of a category, is looked at only once."""


@lru_cache(4096)
def names_a_secret(key: str) -> bool:
    """Return whether a key, a flag or a variable's name says that its value is secret."""
    words = [word.lower().rstrip("0123456789") for word in _WORD.findall(key)]
    words = [word for word in words if word]
    if words[-2:] == ["key", "id"]:
        words.pop()
    if not words:
        return False
    *_, before, last = ["", *words]
    if last == "token":
        return before not in _OF_A_VOCABULARY
    return (
        last in _SECRET_WORDS
        or _GLUED.search(last) is not None
        or (last == "key" and before in _BEFORE_KEY)
        or (last == "pass" and before in _BEFORE_PASS)
        or (last == "pat" and before in _BEFORE_PAT)
        or (last == "string" and before == "connection")
    )


def scrub(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Return a plain value (mappings, lists, texts, numbers) with its secrets hidden.

    Args:
        value: What will be written.
        environment: Where secret values are looked up by name; None means this process's own.
    """
    return _scrub(value, _secret_values(os.environ if environment is None else environment))


def scrub_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result row whose messages hold no secrets; what was generated stays as it is."""
    plain, values = dict(row), _secret_values(os.environ)
    for name in _MESSAGES:
        if plain.get(name):
            plain[name] = _scrub(plain[name], values)
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
        flag = word.startswith("--") and names_a_secret(word)
        follows = not sign and (flag or word in ("-u", "--user"))
    return out


def _secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of the environment's secrets in each spelling, longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        if name not in _FOLDERS and len(value) >= _SHORTEST and names_a_secret(name):
            found |= {value, quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]}
    return tuple(sorted(found, key=len, reverse=True))


def _scrub(value: Any, secrets: tuple[str, ...], hide: bool = False) -> Any:
    """Return a scrubbed value; with `hide`, as behind a secret's name, all of its texts hidden."""
    if isinstance(value, str):
        return (value and HIDDEN) if hide else _text(value, secrets)
    if isinstance(value, Mapping):
        return {
            _text(key, secrets) if isinstance(key, str) else key: _scrub(
                item, secrets, hide or names_a_secret(str(key))
            )
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_scrub(item, secrets, hide) for item in value]
    return value


def _text(text: str, secrets: tuple[str, ...]) -> str:
    return _hide_in_short(text, secrets) if len(text) <= _SHORT else _hide(text, secrets)


@lru_cache(4096)
def _hide_in_short(text: str, secrets: tuple[str, ...]) -> str:
    return _hide(text, secrets)


def _hide(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern in PLACES:
        text = pattern.sub(_KEEP, text)
    text = ISSUERS.sub(HIDDEN, text)
    for pattern in (_ELEMENT, _FLAG, _ASSIGNMENT):
        text = _hide_named(pattern, text)
    return text


_KEEP = r"\g<keep>" + HIDDEN


def _hide_named(pattern: re.Pattern[str], text: str) -> str:
    """Hide the values behind the names that say so; a value may begin with another name."""
    parts, done, place = [], 0, 0
    while found := pattern.search(text, place):
        place = found.end("sign")
        if names_a_secret(found["key"]) and (pattern is not _ASSIGNMENT or _is_a_value(found)):
            parts += [text[done:place], HIDDEN]
            done = place = found.end()
    return "".join([*parts, text[done:]])


def _is_a_value(found: re.Match[str]) -> bool:
    """Return whether what is assigned to a secret's name is a value, not code or a sentence."""
    value, key = found["value"].rstrip(".:"), found["key"].lower().strip("-_")
    if found["quote"]:
        return True
    called = found.string[found.end() : found.end() + 1] in ("(", "[")
    if called or not value or value.lower() in _NO_VALUES:
        return False
    if key not in _WORDS_OF_SENTENCES or (key == "secret" and found["sign"] == "="):
        return True
    return len(value) >= 20 or (len(value) >= 8 and any(letter.isdigit() for letter in value))
