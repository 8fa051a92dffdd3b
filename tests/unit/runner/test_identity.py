"""A job is what it reads: a changed file, part or revision never passes under an old name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from specbench import store
from specbench.cli.run import print_comparison
from specbench.compare import compare
from specbench.models import checkpoint, load
from specbench.models.load import load_pair
from specbench.runner import code, run_job
from specbench.runner import job as job_module
from specbench.runner.code import codes
from specbench.store import Journal
from tests.unit.models import tiny_checkpoints
from tests.unit.models.test_load import entry
from tests.unit.runner import toy


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return tiny_checkpoints.write(tmp_path_factory.mktemp("identity"), "llama")


@pytest.fixture
def folder(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "model"))


def identity(folder):
    files = checkpoint.find(str(folder), None)
    return checkpoint.digest(files), checkpoint.files_digest(files)


def rope(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "rope_theta": 123.0}))


CHANGES = {
    "configuration": rope,
    "end of text": lambda f: (f / "generation_config.json").write_text('{"eos_token_id": 7}'),
    "tokenizer": lambda f: (f / "tokenizer.json").write_text(
        (f / "tokenizer.json").read_text() + " "
    ),
    "tokenizer settings": lambda f: (f / "tokenizer_config.json").write_text('{"a": 1}'),
    "special tokens": lambda f: (f / "special_tokens_map.json").write_text("{}"),
    "added tokens": lambda f: (f / "added_tokens.json").write_text("{}"),
    "vocabulary": lambda f: (f / "vocab.txt").write_text("a"),
    "sentencepiece": lambda f: (f / "tokenizer.model").write_bytes(b"a"),
    "template": lambda f: (f / "chat_template.jinja").write_text("{{ messages }}"),
    "processor": lambda f: (f / "preprocessor_config.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_file_beside_the_weights_belongs_to_the_identity(folder, change):
    weights, files = identity(folder)
    CHANGES[change](folder)
    assert identity(folder)[0] == weights, "calibrations are found by the weights alone"
    assert identity(folder)[1] != files


def test_a_template_in_a_folder_of_templates_belongs_to_it_too(folder):
    _, files = identity(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    assert identity(folder)[1] != files


def test_notes_and_another_place_change_nothing(folder, tmp_path):
    before = identity(folder)
    (folder / "README.md").write_text("about")
    (folder / "modeling_own.py").write_text("never run")
    assert identity(folder) == before == identity(folder.rename(tmp_path / "elsewhere"))


def test_values_inside_of_large_weights_belong_to_the_identity(folder, monkeypatch):
    """Above 1 GiB the digest of the weights sees headers and sizes alone."""
    monkeypatch.setattr(checkpoint, "_HASH_WHOLE_BELOW", 1)
    weights, files = identity(folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert identity(folder)[0] == weights and identity(folder)[1] != files


def test_a_loaded_pair_carries_both_digests(folder):
    about = load_pair(entry(folder)).provenance["target"]
    assert (about["digest"], about["files"]) == identity(folder)


def stem_of(folder, tmp_path, monkeypatch):
    """Return the name under which a toy job over a checkpoint's files is known."""
    original = toy.load

    def loaded(config, needs):
        pair = original(config, needs)
        found = load.describe(checkpoint.find(str(folder), None), pair.target)
        return replace(pair, provenance={"target": found})

    monkeypatch.setattr(toy, "load", loaded)
    try:
        return run_job(toy.config(tmp_path)).path.name
    finally:
        monkeypatch.setattr(toy, "load", original)


def test_a_finished_job_is_measured_anew_after_its_checkpoint_changed(
    folder, tmp_path, monkeypatch
):
    first = stem_of(folder, tmp_path, monkeypatch)
    assert stem_of(folder, tmp_path, monkeypatch) == first
    CHANGES["end of text"](folder)
    assert stem_of(folder, tmp_path, monkeypatch) != first


def test_the_code_of_an_own_part_belongs_to_the_identity(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "alone_part.py").write_text("class Part: pass\n")
    package = tmp_path / "packed_part"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("from packed_part import helper\nclass Part: pass\n")
    (package / "helper.py").write_text("DRAFTS = 3\n")
    node = {
        "decoder": {
            "_target_": "alone_part.Part",
            "parts": [{"_target_": "packed_part.part.Part"}],
        },
        "loader": {"_target_": "specbench.models.load.load_pair"},
    }
    first = codes(node)
    assert sorted(first) == ["alone_part.Part", "packed_part.part.Part"]
    (package / "helper.py").write_text("DRAFTS = 4\n")
    code._digest.cache_clear()
    second = codes(node)
    assert second["alone_part.Part"] == first["alone_part.Part"]
    assert second["packed_part.part.Part"] != first["packed_part.part.Part"]
    (tmp_path / "alone_part.py").write_text("class Part: drafts = 1\n")
    code._digest.cache_clear()
    assert codes(node)["alone_part.Part"] != first["alone_part.Part"]


def test_a_jobs_name_moves_with_the_code_of_its_own_parts(tmp_path, monkeypatch):
    first = run_job(toy.config(tmp_path)).path
    assert list(store.read_parquet(first).metadata.provenance["code"]) == [
        "tests.unit.runner.toy.load"
    ]
    monkeypatch.setattr("specbench.runner.about.codes", lambda values: {"own.Part": "changed"})
    assert run_job(toy.config(tmp_path)).path != first


def test_a_resume_with_other_code_is_noted_and_told(tmp_path, monkeypatch, capsys):
    original = Journal.append_many
    calls = []

    def stopping(journal, rows):
        original(journal, rows)
        calls.append(rows)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append_many", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_job(toy.config(tmp_path))
    before = code.software()
    later = {**before, "git": {"revision": "f" * 40, "dirty": True}, "sources": "sha256:other"}
    monkeypatch.setattr(job_module, "software", lambda: later)
    result = run_job(replace(toy.config(tmp_path), progress=True))
    assert "revision fffffffff and uncommitted changes" in capsys.readouterr().err
    written = store.read_parquet(result.path)
    notes = written.metadata.provenance["processes"]
    assert [note["software"] for note in notes] == [before, later]
    assert any("2 states of specbench's code" in line for line in compare([written]).warnings)


def test_a_resume_with_the_same_code_says_nothing():
    now = code.software()
    assert now["sources"].startswith("sha256:") and code.other_code(now, now) == ""
    assert code.other_code({"specbench": "0.1.0"}, now) == ""  # an older journal knows no sources


def test_a_sweep_over_limits_prints_a_table_for_each(tmp_path, capsys):
    paths = []
    for limit in (4, 6):
        config = replace(toy.config(tmp_path), max_new_tokens=limit)
        paths.append(run_job(config).path)
    print_comparison(paths)
    out = capsys.readouterr().out
    tables = [line for line in out.splitlines() if line.split()[:1] == ["token_sd"]]
    assert len(tables) == 2, out
