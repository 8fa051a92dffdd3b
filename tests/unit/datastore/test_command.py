"""`specbench datastore`, and the embedded pair's own datastore."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from specbench.cli.app import app
from specbench.datastore.format import vocabulary_digest
from specbench.datastore.suffix import SuffixDatastore
from specbench.errors import ConfigError
from specbench.zoo import datastore as embedded
from specbench.zoo.datastore import EMBEDDED, Datastore


def call(*words):
    return CliRunner().invoke(app, ["datastore", *map(str, words)])


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "one two three"}\n{"text": "one two four"}\n')
    return path


def test_build_then_info(tmp_path, text):
    done = call("build", text, "-o", tmp_path / "store", "--model", "tiny_text")
    assert done.exit_code == 0, done.output
    shown = json.loads(call("info", tmp_path / "store", "--json").stdout)
    assert shown["kind"] == "suffix" and shown["documents"] == 2
    assert shown["sources"][0]["name"] == "text.jsonl"
    assert "embedded:tiny_text_target" in call("info", tmp_path / "store").stdout
    assert Datastore(str(tmp_path / "store"), "suffix").folder(None) == tmp_path / "store"
    with pytest.raises(ConfigError, match="kind suffix"):
        Datastore(str(tmp_path / "store"), "dense")


def test_a_dense_datastore_holds_a_state_for_every_next_token(tmp_path, text):
    done = call("build", text, "-o", tmp_path / "s", "--model", "tiny_text", "--kind", "dense")
    assert done.exit_code == 0, done.output
    shown = json.loads(call("info", tmp_path / "s", "--json").stdout)
    assert shown["states"] == shown["tokens"] - 2
    assert shown["model"].startswith("sha256:")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "tiny_text", "--kind", "sparse"), "--kind cannot be 'sparse'"),
        ((), "one tokenizer"),
        (("--model", "tiny_text", "--tokenizer", "x"), "one tokenizer"),
        (("--tokenizer", "x", "--kind", "dense"), "needs a model"),
        (("--tokenizer", "./no/such/folder"), "no tokenizer"),
        (("--model", "tiny_txt"), "tiny_text"),
        (("--model", "hf"), "--target"),
        (("--model", "tiny_text", "--column", "txt"), "Did you mean 'text'?"),
    ],
)
def test_what_makes_no_sense_is_one_error_and_leaves_nothing(tmp_path, text, words, message):
    done = call("build", text, "-o", tmp_path / "out" / "store", *words)
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "out" / "store").exists()
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_missing_file_and_an_existing_folder_are_refused(tmp_path, text):
    assert call("build", "absent", "-o", tmp_path / "s", "--model", "tiny_text").exit_code == 2
    done = call("build", text, "-o", tmp_path, "--model", "tiny_text")
    assert done.exit_code == 2 and "never overwritten" in done.output
    assert call("info", tmp_path / "absent").exit_code == 2


class Letters:
    """A tokenizer of letters, like transformers' as far as a build needs."""

    def get_vocab(self):
        return {chr(index): index for index in range(256)}

    def __call__(self, texts, **options):
        assert options["add_special_tokens"] is False
        return {"input_ids": [[min(ord(letter), 255) for letter in text] for text in texts]}


def pair(source, tokenizer=None):
    provenance = {"target": {"source": source, "digest": "sha256:weights"}}
    return SimpleNamespace(name="pair", provenance=provenance, tokenizer=tokenizer, target=None)


def test_auto_stands_for_nothing_on_another_model():
    with pytest.raises(ConfigError, match="no datastore of its own") as error:
        Datastore("auto", "suffix").folder(pair("ORG/NAME", Letters()))
    assert "method.datastore=DIR" in error.value.fix
    assert Datastore("auto", "suffix").folder(pair("toy")) is None


def test_the_embedded_datastore_is_built_once_and_holds_no_held_out_prompt(
    tmp_path, monkeypatch, capsys
):
    from specbench.zoo.held_out import held_out_prompts

    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(embedded.TOKENS, "suffix", 200_000)
    models = pair(EMBEDDED, Letters())
    folder = Datastore("auto", "suffix").folder(models)
    assert folder is not None and str(folder) in capsys.readouterr().err
    built = (folder / "meta.json").stat().st_mtime_ns
    assert Datastore("auto", "suffix").folder(models) == folder
    assert (folder / "meta.json").stat().st_mtime_ns == built
    assert capsys.readouterr().err == ""
    store = SuffixDatastore(folder)
    assert store.metadata.tokenizer == vocabulary_digest(Letters().get_vocab())
    ids = (folder / "tokens.u32").read_bytes()[3::4]
    assert b"<|assistant|>" in ids
    for prompt in sorted(held_out_prompts()):
        assert b"<|user|>" + prompt.encode("latin-1") + b"<|assistant|>" not in ids
