"""Whatever file a user names, a pipe does not hang a reader and a device does not fill memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from specbench import bounded, calibration
from specbench.datastore import documents
from specbench.decoding.constraints.grammar import LARGEST_GRAMMAR, read_grammar
from specbench.errors import ConfigError, SpecbenchError
from specbench.importing import documents as published
from specbench.metrics.references import StatisticsFile, read_picture
from specbench.models import checkpoint_files, vqgan_files
from specbench.predict import resolve
from specbench.store import read_parquet
from specbench.tasks import sources

READERS = {
    "calibration": calibration.read,
    "checkpoint": checkpoint_files.read_json,
    "documents": lambda path: list(documents.read_documents(path, "text")),
    "grammar": lambda path: read_grammar(f"lark:{path}"),
    "import": lambda path: published._bytes(path),
    "picture": read_picture,
    "result": read_parquet,
    "schema": lambda path: read_grammar(f"json_schema:{path}"),
    "shape": lambda path: resolve._from_file(path, "shape"),
    "statistics": lambda path: StatisticsFile(path).prepare("fid"),
    "task": sources.read_file,
    "image tokenizer": vqgan_files._read_model,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_only_regular_files_are_read(tmp_path, reader, kind):
    path = tmp_path / "endless"
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(SpecbenchError) as caught:
        READERS[reader](path)
    assert path.name in caught.value.what
    assert kind == "folder" or "a pipe or a device" in str(caught.value)


def test_a_file_larger_than_its_limit_is_refused_before_it_is_held(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(OSError, match="larger than 64 MiB"):
        bounded.read_bytes(path)
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        read_grammar(f"lark:{path}")
    with path.open("wb") as file:
        file.truncate(LARGEST_GRAMMAR)
    assert len(bounded.read_text(path, LARGEST_GRAMMAR)) == LARGEST_GRAMMAR
