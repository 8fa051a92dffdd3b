"""Batches follow from seed and step; files are whole or not there."""

from __future__ import annotations

import errno
from itertools import islice
from pathlib import Path

import pytest
import torch

from specbench.errors import ResultsError
from specbench.training.corpus import Corpus, Order, grouped, packed, padded
from specbench.training.shards import Shard, write_tensors

ROWS = [[1, 2, 3, 4], [5, 6], [7, 8, 9], [3, 1]]
PROMPTS = [2, 1, 1, 1]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    parts = [(ROWS[:2], PROMPTS[:2]), (ROWS[2:3], PROMPTS[2:3]), (ROWS[3:], PROMPTS[3:])]
    shards = [
        Shard(tmp_path / f"a{number}.safetensors", lambda part=part: packed(*part))
        for number, part in enumerate(parts)
    ]
    made = Corpus(shards, held_out=1)
    for number, part in enumerate(parts):
        tokens = torch.tensor([token for row in part[0] for token in row], dtype=torch.float16)
        states = torch.stack([tokens, -tokens], -1)
        make = lambda states=states: {"states": states}  # noqa: E731
        made.keep(-1, number, Shard(tmp_path / f"s{number}.safetensors", make))
    return made


def test_documents_come_back_with_their_states(corpus: Corpus) -> None:
    assert [each.tokens for each in corpus.documents] == ROWS[:3]
    assert [each.tokens for each in corpus.held_out] == ROWS[3:]
    batch = corpus.batch([corpus.documents[2], corpus.documents[1]], (-1,))
    assert batch.tokens.tolist() == [[7, 8, 9], [5, 6, 0]]
    assert batch.learned.tolist() == [[False, True, True], [False, True, False]]
    assert batch.states[-1][..., 0].tolist() == [[7, 8, 9], [5, 6, 0]]
    assert batch.states[-1][..., 1].tolist() == [[-7, -8, -9], [-5, -6, 0]]


def test_a_place_predicts_the_next_token_of_an_answer() -> None:
    batch = padded(ROWS[:2], PROMPTS[:2])
    assert batch.predicting.tolist() == [[False, True, True, False], [True, False, False, False]]


def test_an_epoch_reads_every_document_once_and_the_next_in_another_order() -> None:
    lengths = [3 + 7 * index % 11 for index in range(40)]
    order = Order(lengths, 30, seed=5)
    read: list[list[int]] = []
    for step in range(1000):
        read.append(order.of(step))
        if sum(map(len, read)) == 40:
            break
    first = [index for group in read for index in group]
    assert sorted(first) == list(range(40))
    assert all(len(group) * max(lengths[i] for i in group) <= 30 for group in read)
    later = [order.of(len(read) + step) for step in range(len(read))]
    assert sorted(index for group in later for index in group) == list(range(40))
    assert later != read
    again = Order(lengths, 30, seed=5)
    assert again.of(len(read) + 1) == later[1] and again.of(0) == read[0]
    assert Order(lengths, 30, seed=6).of(0) != read[0] or Order(lengths, 30, 6).of(1) != read[1]


def test_a_document_that_is_too_long_is_alone() -> None:
    assert grouped([0, 1, 2], [3, 90, 4], 20) == [[0, 2], [1]]


def test_the_digest_is_of_tokens_and_prompts(tmp_path: Path) -> None:
    digests = set()
    for number, (rows, prompts) in enumerate(
        [(ROWS, PROMPTS), (ROWS, [1, 1, 1, 1]), (ROWS[::-1], PROMPTS[::-1])]
    ):
        shard = Shard(tmp_path / f"{number}.safetensors", lambda r=rows, p=prompts: packed(r, p))
        digests.add(Corpus([shard], 0).digest)
    assert len(digests) == 3


def test_a_file_that_stands_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    made = Shard(path, lambda: packed(ROWS, PROMPTS))
    again = Shard(path, lambda: pytest.fail("made again"))
    assert torch.equal(made.whole("tokens"), again.whole("tokens"))
    assert again.part("tokens", 2, 5).tolist() == [3, 4, 5]


def test_a_full_disk_is_one_line_and_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.ones(2)}, {})
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResultsError, match="The disk is full") as told:
        write_tensors(path, {"x": torch.zeros(2)}, {})
    assert "SPECBENCH_CACHE" in told.value.fix
    assert path.read_bytes() == before
    assert [file.name for file in islice(tmp_path.iterdir(), 5)] == ["a.safetensors"]
