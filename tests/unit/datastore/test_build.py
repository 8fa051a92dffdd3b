"""From files to a folder: what is read, what is refused, and that nothing is left half made."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specbench.datastore import documents as reading
from specbench.datastore.build import Text, Tokenizer, build
from specbench.datastore.documents import Piece, file_digest, read_documents
from specbench.datastore.format import END_OF_DOCUMENT, read_metadata, vocabulary_digest
from specbench.datastore.suffix import SuffixDatastore
from specbench.datastore.tokens import MappedTokens
from specbench.errors import ConfigError, UsageError


def letters(texts):
    return [[ord(letter) for letter in text] for text in texts]


WORDS = Tokenizer(letters, "sha256:letters", "letters")


def text(*documents):
    return Text("memory", "digest", [Piece(document, True) for document in documents])


def read(path, column="text"):
    """Return the documents of a file, their pieces joined."""
    documents, held = [], ""
    for piece in read_documents(path, column):
        held += piece.text
        if piece.last:
            documents.append(held)
            held = ""
    assert not held
    return documents


def test_every_format_gives_its_documents(tmp_path):
    rows = [{"text": "first\nline"}, {"text": ""}, {"text": "second"}]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(lines)
    pq.write_table(pa.table({"text": ["first\nline", "", None, "second"]}), tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        assert read(tmp_path / name) == ["first\nline", "second"]
    (tmp_path / "d.txt").write_text("one\ntwo\n")
    (tmp_path / "empty.txt").write_text("")
    assert read(tmp_path / "d.txt") == ["one\ntwo\n"]
    assert read(tmp_path / "empty.txt") == []


def test_a_long_text_comes_in_pieces_of_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_PIECE", 20)
    lines = "".join(f"line {number}\n" for number in range(20))
    (tmp_path / "long.txt").write_text(lines)
    pieces = list(read_documents(tmp_path / "long.txt", ""))
    assert len(pieces) > 3 and all(piece.text.endswith("\n") for piece in pieces)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.text for piece in pieces) == lines


def test_a_missing_column_is_named_with_the_ones_there_are(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(UsageError, match="Line 1 of") as error:
        read(tmp_path / "a.jsonl", "boddy")
    assert "body" in error.value.why and "Did you mean 'body'?" in error.value.fix
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "b.parquet")
    with pytest.raises(UsageError) as error:
        read(tmp_path / "b.parquet", "n")
    assert "body" in error.value.why


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b"{"), ("a.txt", b"\xff\xfe\xff"), ("a.txt.gz", b"no gzip"), ("a.parquet", b"x")],
)
def test_a_broken_file_is_one_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError):
        read(tmp_path / name)


def test_a_build_says_what_it_holds(tmp_path):
    folder = tmp_path / "store"
    stages = []
    metadata = build(
        folder, [text("abab", "", "abc")], WORDS, report=lambda *step: stages.append(step)
    )
    assert read_metadata(folder, "suffix") == metadata
    assert (metadata.tokens, metadata.documents, metadata.largest_token) == (7, 2, ord("c"))
    assert metadata.sources[0].documents == 2 and metadata.tokenizer == "sha256:letters"
    assert stages[-1] == ("sorting", 7)
    ids = MappedTokens(folder).array.tolist()
    assert ids == [*map(ord, "abab"), END_OF_DOCUMENT, *map(ord, "abc"), END_OF_DOCUMENT]
    match = SuffixDatastore(folder).longest_match([ord("a"), ord("b")], 2, 16)
    assert match is not None and match.stop - match.start == 3


def test_pieces_of_a_document_are_joined(tmp_path):
    pieces = [Piece("ab", False), Piece("cd", True), Piece("e", False)]
    build(tmp_path / "store", [Text("memory", "", pieces)], WORDS)
    ids = MappedTokens(tmp_path / "store").array.tolist()
    assert ids == [*map(ord, "abcd"), END_OF_DOCUMENT, ord("e"), END_OF_DOCUMENT]


def test_the_limit_ends_with_a_document(tmp_path):
    many = [text(*["abcd"] * 10), text("never read")]
    metadata = build(tmp_path / "store", many, WORDS, limit=10)
    assert (metadata.tokens, metadata.documents) == (12, 3)
    assert [source.documents for source in metadata.sources] == [3]


@pytest.mark.parametrize("broken", ["encode", "sort"])
def test_nothing_stands_where_a_build_failed(tmp_path, broken):
    def refuse(texts):
        raise RuntimeError("broken")

    words = WORDS if broken == "sort" else Tokenizer(refuse, "", "")
    with pytest.raises((RuntimeError, UsageError)):
        build(tmp_path / "store", [text("abc")], words, free_bytes=1)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_built_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no text"):
        build(tmp_path / "store", [text("")], WORDS)
    with pytest.raises(UsageError, match="memory"):
        build(tmp_path / "store", [text("abc")], WORDS, free_bytes=10)
    build(tmp_path / "store", [text("abc")], WORDS)
    with pytest.raises(UsageError, match="exists already"):
        build(tmp_path / "store", [text("abc")], WORDS)
    again = build(tmp_path / "store", [text("xyz")], WORDS, shared=True)
    assert again.tokens == 3, "another process was first; its folder stays"
    assert MappedTokens(tmp_path / "store").array[0] == ord("a")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_no_datastore_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="There is no datastore"):
        read_metadata(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is not a datastore"):
        read_metadata(tmp_path)
    build(tmp_path / "store", [text("abc")], WORDS)
    with pytest.raises(ConfigError, match="kind suffix"):
        read_metadata(tmp_path / "store", "dense")
    meta = tmp_path / "store" / "meta.json"
    meta.write_text(meta.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(ConfigError, match="format 0"):
        read_metadata(tmp_path / "store")


def test_a_vocabulary_is_named_by_every_token_and_id():
    one = vocabulary_digest({"a": 0, "b": 1})
    assert one == vocabulary_digest({"b": 1, "a": 0})
    assert len({one, vocabulary_digest({"a": 1, "b": 0}), vocabulary_digest({"a": 0})}) == 3


def test_a_file_is_named_by_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"y")
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")


def test_large_ids_are_stored_whole(tmp_path):
    """Trap: the released index of REST stores 16 bits of an id."""
    wide = Tokenizer(lambda texts: [[70_000, 4_464, 70_000, 4_465] for _ in texts], "", "")
    build(tmp_path / "store", [text("x")], wide)
    store = SuffixDatastore(tmp_path / "store")
    match = store.longest_match([70_000, 4_464], 2, 2)
    assert match is not None
    assert store.continuations(match, 5, 2).tolist() == [[70_000, 4_465]]
    assert store.longest_match([70_000 % 2**16, 4_464], 2, 2) is None
    assert np.dtype(store.continuations(match, 5, 2).dtype) == np.uint32
