"""Damaged and hostile GGUF files get one line, in bounded time and memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given

from specbench.errors import ModelError
from specbench.models.gguf.convert import convert
from specbench.models.gguf.header import read_header
from tests.fuzz.hostile import FUZZ, damaged
from tests.unit.models import gguf_files as files
from tests.unit.models.gguf_files import plain

SECONDS, MEBIBYTES = 60.0, 12


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    return files.written(path, files.metadata(), files.model()[0]).read_bytes()


def outcome(path: Path) -> str:
    """Convert, and return the one line of a refusal; any other error goes through."""
    begun = time.monotonic()
    try:
        convert(path)
        said = ""
    except ModelError as error:
        said = error.why
        assert error.what and "\n" not in said
    assert time.monotonic() - begun < SECONDS
    return said


@FUZZ
@given(data=...)
def test_noise_is_refused(tmp_path, monkeypatch, data: bytes):
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + data)
    assert outcome(path)


def test_damage_is_refused_or_harmless(tmp_path, monkeypatch, valid):
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    head = valid[: 1 << 14]  # where damage says something

    @FUZZ
    @given(begin=damaged(head))
    def of(begin: bytes) -> None:
        path = tmp_path / "a.gguf"
        path.write_bytes(begin + valid[1 << 14 :])
        outcome(path)

    of()


def test_every_length_of_a_cut_file_is_refused(tmp_path, monkeypatch, valid):
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.gguf"
    for length in range(0, len(valid), len(valid) // 60):
        path.write_bytes(valid[:length])
        assert outcome(path), length


def start(tensors: int, fields: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields)


def array(kind: int, count: int) -> bytes:
    return start(0, 1) + files.text("a") + struct.pack("<IIQ", 9, kind, count)


FAR = 1 << 62
HOSTILE = {
    "is cut off": start(0, 1) + struct.pack("<Q", FAR),
    "claims to hold 4,611,686,018,427,387,904 tensors": start(FAR, 0),
    "claims to hold 4,611,686,018,427,387,904 fields": start(0, FAR),
    "claims to hold 4,611,686,018,427,387,904 items": array(4, FAR),
    "values of type 9": array(9, 2) + struct.pack("<IQ", 9, 2) * 5000,
    "values of type 77": array(77, 2),
    "not UTF-8": start(0, 1) + files.text(b"\xff\xfe"),
    "it is no GGUF file": b"FUGG" + bytes(64),
    "its version is 50331648": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "the field 'a' is there twice": start(0, 2) + (files.text("a") + files.value_of(1)) * 2,
    "has 4294967295 dimensions": start(1, 0) + files.text("a") + struct.pack("<I", 2**32 - 1),
    "is of type 999": start(1, 0) + files.text("a") + struct.pack("<IQIQ", 1, 4, 999, 0),
    "has the shape [0]": start(1, 0) + files.text("a") + struct.pack("<IQIQ", 1, 0, 0, 0),
    "alignment is 7": start(0, 1) + files.text("general.alignment") + files.value_of(7),
}


@pytest.mark.parametrize("why", HOSTILE)
def test_a_hostile_header_is_told_in_a_line(tmp_path, why):
    path = tmp_path / "a.gguf"
    path.write_bytes(HOSTILE[why])
    with pytest.raises(ModelError) as refused:
        read_header(path)
    assert why in refused.value.why


def test_tensors_on_each_other_and_behind_the_end_are_refused(tmp_path):
    path = tmp_path / "a.gguf"
    rows = b"".join(files.text(name) + struct.pack("<IQIQ", 1, 8, 0, 0) for name in ("a", "b"))
    path.write_bytes(start(2, 0) + rows + bytes(200))
    with pytest.raises(ModelError, match="cannot be read") as refused:
        read_header(path)
    assert "lies on another tensor" in refused.value.why
    far = files.text("a") + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 20, 0, 0)
    path.write_bytes(start(1, 0) + far + bytes(200))
    with pytest.raises(ModelError) as refused:
        read_header(path)
    assert "it ends after" in refused.value.why


def test_many_empty_texts_cost_bounded_memory(tmp_path):
    path = tmp_path / "a.gguf"
    count = 1 << 16
    path.write_bytes(array(8, count) + bytes(8 * count))
    tracemalloc.start()
    try:
        read_header(path)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTES << 20
    finally:
        tracemalloc.stop()


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.gguf")
    assert "pipe" in outcome(tmp_path / "a.gguf")


def test_a_template_runs_in_the_sandbox_of_chat_templates(tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    fields = files.metadata(tokenizer__chat_template=reach)
    path = files.written(tmp_path / "a.gguf", fields, files.model()[0])
    tokenizer = AutoTokenizer.from_pretrained(convert(path))
    with pytest.raises(Exception, match="unsafe|Security"):
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)


def test_numbers_that_are_none_are_kept_and_harm_nothing(tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    norm = plain(np.full(files.HIDDEN, np.nan, np.float32))
    tensors = files.model()[0] | {"output_norm.weight": norm}
    assert outcome(files.written(tmp_path / "a.gguf", files.metadata(), tensors)) == ""
