"""A secret that anyone gave to a run reaches nothing that the run leaves behind."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specbench import store
from specbench.runner import run_job
from specbench.secrets import HIDDEN, names_a_secret, scrub, scrub_command, scrub_row
from tests.unit.runner import toy

HUB = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz"
LITERAL = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    "key",
    ["token", "hf_token", "model.token", "--api-key", "HF_TOKEN", "WANDB_API_KEY", "db.password"]
    + [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "credentials",
        "Authorization",
        "github-token",
    ],
)
def test_names_of_secrets(key):
    assert names_a_secret(key)


@pytest.mark.parametrize(
    "key",
    ["max_new_tokens", "stop_token", "mask_token", "tokenizer", "key", "TOKENIZERS_PARALLELISM"]
    + ["token_sd", "monkey", "author", "secretary", "draft_token", "HF_TOKEN_PATH"],
)
def test_names_that_only_look_like_secrets(key):
    assert not names_a_secret(key)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://me:pw123@host/x", "https://***@host/x"),
        ("git+ssh://token@host/x", "git+ssh://***@host/x"),
        ("s3://b/k?X-Amz-Signature=abc&part=1", "s3://b/k?X-Amz-Signature=***&part=1"),
        ("https://h/x?access_token=abc#top", "https://h/x?access_token=***#top"),
        ("401 for Bearer abcdefghijkl", "401 for Bearer ***"),
        (f"Repository not found: {HUB}.", "Repository not found: ***."),
        ("key AKIAABCDEFGHIJKLMNOP here", "key *** here"),
        ("password=abc; next", "password=***; next"),
        ("meta-llama/Llama-3.1-8B@main", "meta-llama/Llama-3.1-8B@main"),
        ("stop_token=</s> in task-12_sk", "stop_token=</s> in task-12_sk"),
        ("https://huggingface.co/a/b?revision=1", "https://huggingface.co/a/b?revision=1"),
    ],
)
def test_texts(text, hidden):
    assert scrub(text, {}) == hidden


def test_values_of_the_environment_are_hidden_wherever_they_stand():
    environment = {"MY_SERVICE_TOKEN": LITERAL, "PATH": "/usr/bin:/bin", "SHORT_TOKEN": "abc"}
    value = {"a": [f"x{LITERAL}y", {"b": (LITERAL, 3, None)}], "path": "/usr/bin:/bin abc"}
    assert scrub(value, environment) == {
        "a": [f"x{HIDDEN}y", {"b": [HIDDEN, 3, None]}],
        "path": "/usr/bin:/bin abc",
    }


def test_a_shells_folders_are_no_secrets():
    """Messages name files below the current folder."""
    environment = {"PWD": "/home/ann/runs", "OLDPWD": "/home/ann/other", "DB_PWD": LITERAL}
    text = "Cannot read '/home/ann/runs/a.yaml' or '/home/ann/other/b.yaml'"
    assert scrub(text, environment) == text
    assert scrub(f"with {LITERAL}", environment) == f"with {HIDDEN}"


def test_command_lines():
    words = ["specbench", "run", "+model.token=abc", "--api-key", "abc", "--token=abc", "-m"]
    words += ["method=token_sd", "--password", "--quiet", f"model.target=https://u:{LITERAL}@h/x"]
    assert scrub_command(words, {}) == [
        *["specbench", "run", "+model.token=***", "--api-key", "***", "--token=***", "-m"],
        *["method=token_sd", "--password", "--quiet", "model.target=https://***@h/x"],
    ]


def test_what_was_generated_is_not_touched(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", LITERAL)
    row = {"output_text": [LITERAL], "error": f"failed with {LITERAL}", "score_detail": None}
    assert scrub_row(row) == {
        "output_text": [LITERAL],
        "error": "failed with ***",
        "score_detail": None,
    }


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_hiding_twice_changes_no_more(text):
    once = scrub(text, {})
    assert scrub(once, {}) == once


def everything_written(folder: Path) -> str:
    """Return all that the files of a results folder hold, as text."""
    parts: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            result = store.read_parquet(path)
            parts.append(json.dumps(result.table.to_pylist(maps_as_pydicts="strict"), default=str))
            parts += [value.decode() for value in (result.table.schema.metadata or {}).values()]
            parts.append(result.metadata.to_json())
            import pyarrow.parquet as pq

            raw = pq.read_metadata(path)
            parts += [value.decode("utf-8", "replace") for value in (raw.metadata or {}).values()]
        elif path.is_file():
            parts.append(path.read_text(errors="replace"))
    return "\n".join(parts)


class Leaky:
    """A loader's and a decoder's worst: it names the token in its error."""

    needs: frozenset[str] = frozenset()
    carries_state = False

    def check(self, law: Any) -> None:
        """Accept every law."""

    def prepare(self, models: Any) -> None:
        """Need nothing."""

    def inputs(self) -> dict[str, str]:
        """Read nothing."""
        return {}

    def reset(self) -> None:
        """Keep nothing."""

    def generate(self, models: Any, request: Any, clock: Any) -> Any:
        """Fail with a secret."""
        raise RuntimeError(f"401 for https://me:{LITERAL}@host and {HUB} and pass-{LITERAL}")


def test_planted_secrets_reach_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", HUB)
    monkeypatch.setenv("SOME_PASSWORD", LITERAL)
    argv = ["specbench", "run", f"+model.options.token={HUB}", "--api-key", LITERAL]
    monkeypatch.setattr(sys, "argv", [*argv, f"model.target=https://me:{LITERAL}@host/x"])
    config = toy.config(tmp_path)
    options = {"token": "plain-secret-1", "url": "https://h/x?sig=plain-secret-2"}
    config = replace(
        config,
        model=replace(config.model, target=f"https://me:{LITERAL}@host/x"),
        method=replace(
            toy.method("leaky", {"_target_": "tests.unit.test_secrets.Leaky"}), parameters=options
        ),
    )
    result = run_job(config)
    assert result.failed == 4
    written = everything_written(tmp_path / "results")
    assert "401 for https://***@host" in written, "the error itself must stay readable"
    for secret in (HUB, LITERAL, "plain-secret-1", "plain-secret-2"):
        assert secret not in written


def test_planted_secrets_reach_no_journal(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_PASSWORD", LITERAL)
    from tests.unit.compare.factory import failed_row, metadata

    about = replace(metadata(), provenance={"command": ["x", f"token={LITERAL}", HUB]})
    with store.Journal.open(tmp_path, "job", about) as journal:
        journal.append_many([{**failed_row("method", "a", 0), "error": f"no {LITERAL}, no {HUB}"}])
    written = everything_written(tmp_path)
    assert "no ***, no ***" in written
    assert LITERAL not in written and HUB not in written
