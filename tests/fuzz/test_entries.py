"""Entries with values of every wrong kind are refused in words, and read in bounded time."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import time
from pathlib import Path

import pytest
import yaml

from specbench.cli.listing import _COLUMNS, _cell, _family, list_entries
from specbench.cli.show import show
from specbench.errors import ConfigError, SpecbenchError
from specbench.hosting import HostRequest, compose_jobs
from specbench.schema import catalog
from tests.fuzz.hostile import FUZZ

ENTRIES = {
    "method": "token_sd",
    "model": "tiny_image",
    "task": "tiny",
    "metric": "shapes_fd",
    "hardware": "h100_sxm",
    "shape": "llama_3_8b",
}
WRONG = (None, 7, float("nan"), "text", [3], {"a": 1})


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def one_of(group: str) -> str:
    """Return an entry of a group, the usual one where it is there."""
    names = catalog.names(group)
    return ENTRIES[group] if ENTRIES[group] in names else names[0]


def changed(entry, path, value):
    """Return a copy of nested keys with one value replaced, or taken out where it is `...`."""
    copy = dict(entry)
    if len(path) > 1:
        copy[path[0]] = changed(copy[path[0]], path[1:], value)
    elif value is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = value
    return copy


def paths_of(entry, above=()):
    for key, value in entry.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths_of(value, (*above, key))


def refused(call) -> bool:
    """Call, and return whether an error of ours refused; any other goes through."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            call()
        except SpecbenchError as error:
            assert error.what
            return True
    return False


def line_of(group, folder):
    """Return the cells of an entry's line in a listing."""
    entry = catalog.load(group, "mine", [folder])
    return [_cell(read(entry)) for _, read in _COLUMNS[catalog.plural(group)]], _family(entry)


@pytest.mark.parametrize("group", ENTRIES)
def test_wrong_kinds_of_values_never_crash_show_and_list(tmp_path, group):
    name = one_of(group)
    entry = catalog.load(group, name)
    (tmp_path / group).mkdir()
    count = 0
    values = itertools.cycle((*WRONG, ...))
    for path in paths_of(entry):
        for value in itertools.islice(values, 3 if FUZZ.max_examples < 150 else len(WRONG) + 1):
            text = yaml.dump(changed(entry, path, value), Dumper=_DUMPER)
            (tmp_path / group / "mine.yaml").write_text(text)
            refused(lambda: show(group, "mine", False, tmp_path, False, 6, None))
            refused(lambda: line_of(group, tmp_path))
            count += 1
    assert count >= 25


def laughs(levels: int = 12, each: int = 12) -> str:
    """Return a small file whose aliases stand for each ** levels values."""
    lines = ["name: mine", "a0: &a0 [lol]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * each)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines) + "\n"


def refers(levels: int = 9, each: int = 10) -> str:
    """Return a small file whose references stand for each ** levels words."""
    lines = ["name: mine", "a0: lol"]
    lines += [f"a{level}: " + f"${{.a{level - 1}}}" * each for level in range(1, levels)]
    return "\n".join(lines) + "\n"


MISTAKES = {
    "tab": ("name: mine\ndecoder:\n\tdraft: 1\n", "is not YAML"),
    "duplicate key": ("name: mine\ntitle: one\ntitle: two\n", "title"),
    "bracket": ("name: [\n", "is not YAML"),
    "aliases": (laughs(), "too many values"),
    "references": (refers(), "refers to other keys too often"),
    "alias of itself": ("name: mine\na: &a [*a]\n", "too many values"),
    "nested": ("name: mine\na: " + "[" * 5000 + "\n", "is not YAML"),
    "nested in lines": ("- " * 5000 + "a\n", ""),
    "large": ("name: mine\n# " + "x" * (1 << 19) + "\n", "larger than 256 KiB"),
    "bytes": (b"name: \xff\xfe\n", ""),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_is_one_clear_line_in_bounded_time(tmp_path, mistake):
    content, told = MISTAKES[mistake]
    (tmp_path / "method").mkdir()
    path = tmp_path / "method" / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    begun = time.monotonic()
    calls = [
        lambda: show("method", "mine", False, tmp_path, False, 6, None),
        lambda: list_entries("methods", False, tmp_path, Path("results")),
        lambda: compose_jobs(HostRequest(("method=mine",), config_dir=tmp_path)),
        lambda: compose_jobs(HostRequest(("+method=mine",), config_dir=tmp_path)),
        lambda: compose_jobs(HostRequest(("baseline=mine",), config_dir=tmp_path)),
    ]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        if call in calls[:2]:
            assert told in str(caught.value), caught.value
            assert "mine.yaml" in caught.value.what
            assert "\n" not in caught.value.what + caught.value.why
    assert time.monotonic() - begun < 20


def test_hydras_own_reading_of_a_broken_file_is_explained_too(tmp_path):
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "mine.yaml").write_text("a: 1\n\tb: 2\n")
    with pytest.raises(ConfigError) as caught:
        compose_jobs(HostRequest(("hydra/launcher=mine",), config_dir=tmp_path))
    assert "mine.yaml' is not YAML" in caught.value.what and "line 2" in caught.value.why


def test_a_pipe_among_the_entries_does_not_hang(tmp_path):
    (tmp_path / "method").mkdir()
    os.mkfifo(tmp_path / "method" / "mine.yaml")
    for call in (
        lambda: list_entries("methods", False, tmp_path, Path("results")),
        lambda: compose_jobs(HostRequest((), config_dir=tmp_path)),
    ):
        with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
            call()
        assert "pipe" in caught.value.why
