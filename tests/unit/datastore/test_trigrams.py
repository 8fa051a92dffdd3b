"""Tri-grams counted from a suffix array against brute force."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from specbench.datastore import suffix
from specbench.datastore.trigrams import count_trigrams
from tests.unit.datastore.test_suffix import random_documents, store_of


def counted(documents):
    after = defaultdict(Counter)
    for text in documents:
        for first, second, third in zip(text, text[1:], text[2:], strict=False):
            after[first, second][third] += 1
    return after


@pytest.mark.parametrize("vocab", [3, 250, 3_000_000_000])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_shares_are_those_of_brute_force(tmp_path, monkeypatch, vocab, chunk):
    documents = random_documents(vocab % 97, vocab, count=20, length=60)
    store = store_of(tmp_path / "store", documents)
    monkeypatch.setattr(suffix, "_CHUNK", chunk)
    table, expected = count_trigrams(store, 2), counted(documents)
    assert len(table) == len(expected)
    for pair, times in expected.items():
        ranked = sorted(times.items(), key=lambda item: (-item[1], item[0]))[:2]
        found = table.after(*pair)
        assert found is not None
        assert found.tokens == [token for token, _ in ranked]
        assert found.chances == pytest.approx([n / sum(times.values()) for _, n in ranked])


def test_a_pair_that_does_not_occur_and_a_text_without_trigrams(tmp_path):
    table = count_trigrams(store_of(tmp_path / "store", [[1, 2], [3]]), 12)
    assert len(table) == 0 and table.after(1, 2) is None
    table = count_trigrams(store_of(tmp_path / "other", [[1, 2, 3]]), 12)
    assert table.after(1, 2) == ([3], [1.0])
    assert table.after(0, 2) is None and table.after(2, 3) is None
