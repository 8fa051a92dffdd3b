"""The library is compiled once, kept, made again where it is broken, and missed with a sentence."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
import torch

from specbench.models.native import check, library
from specbench.models.native.library import Unavailable
from tests.unit.models.native.small import lean

# stands in for a compiler: notes that it was called, and copies what the real one made
_COMPILER = """#!/bin/sh
for argument; do target=$argument; done
case " $* " in *" -dM "*) echo predefined {words}; exit 0;; esac
echo called >> {folder}/calls
{before}
cp {made} "$target"
"""


@pytest.fixture
def made(compiled):
    """The file that the real compiler made."""
    return compiled._name


@pytest.fixture
def compiler(tmp_path, monkeypatch, made):
    """Return what sets a compiler up, and an empty cache; nothing is loaded at first."""
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))

    def install(before="", words="", copied=made):
        script = tmp_path / "compiler"
        script.write_text(
            _COMPILER.format(words=words, folder=tmp_path, before=before, made=copied)
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(script))
        library.load.cache_clear()

    yield install
    library.load.cache_clear()


def calls(folder):
    file = folder / "calls"
    return len(file.read_text().splitlines()) if file.exists() else 0


def kept(folder):
    return list((folder / "cache" / "native").iterdir())


def test_a_second_start_compiles_nothing(compiler, tmp_path):
    compiler()
    assert library.load().lanes() > 0
    library.load.cache_clear()
    library.load()
    assert calls(tmp_path) == 1 and len(kept(tmp_path)) == 1


def test_another_processor_gets_a_library_of_its_own(compiler, tmp_path):
    for words in ("one", "other"):
        compiler(words=words)
        library.load()
    assert calls(tmp_path) == 2 and len(kept(tmp_path)) == 2


def test_a_broken_file_is_made_again(compiler, tmp_path):
    compiler()
    file = tmp_path / "cache" / "native" / f"{library._digest(library._command())}.so"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a library")
    assert library.load().lanes() > 0
    assert calls(tmp_path) == 1 and kept(tmp_path) == [file]


def test_a_cache_that_cannot_be_written_costs_a_compilation_each_time(compiler, tmp_path):
    compiler()
    (tmp_path / "cache").write_text("a file where the folder should be")
    for count in (1, 2):
        library.load.cache_clear()
        assert library.load().lanes() > 0
        assert calls(tmp_path) == count


def test_no_compiler_is_said(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    library.load.cache_clear()
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler was found \(c\+\+, g\+\+, clang"):
        library.load()
    library.load.cache_clear()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (dict(before="echo disk full >&2; exit 1"), "failed: disk full"),
        (dict(before="exit 1"), "failed: it said nothing"),
        (dict(copied="/dev/null"), "cannot be loaded"),
    ],
)
def test_a_broken_compiler_is_said(compiler, tmp_path, broken, said):
    compiler(**broken)
    with pytest.raises(Unavailable, match=said):
        check.native_decoder(lean("grouped"))


def test_two_processes_may_compile_at_once(compiler, tmp_path):
    compiler(before="sleep 0.3")
    code = "from specbench.models.native import library; print(library.load().lanes() > 0)"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in both] == [b"True\n"] * 2
    assert len(kept(tmp_path)) == 1


def test_wrong_numbers_are_found_and_said(compiled, monkeypatch):
    monkeypatch.setattr(
        check,
        "_logits",
        lambda model: torch.full((3,), 1.0 if isinstance(model, check.NativeDecoder) else 0.0),
    )
    check._wrong.cache_clear()
    with pytest.raises(Unavailable, match="computes float32 logits that are 1 off"):
        check.native_decoder(lean("grouped"))
    check._wrong.cache_clear()
    monkeypatch.setattr(check, "_logits", lambda model: torch.tensor([float("nan")]))
    with pytest.raises(Unavailable, match="nan off"):
        check.native_decoder(lean("grouped"))
    check._wrong.cache_clear()


def test_the_check_passes_here(compiled):
    check._wrong.cache_clear()
    assert check._wrong(torch.get_num_threads()) == ""
