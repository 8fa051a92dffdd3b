"""The counted prefixes against a dictionary, and how ties and limits are cut."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from specbench.datastore.prefix_tree import (
    frequent_prefixes,
    sorted_rows,
    trim_to_path_tokens,
)

END = 99


def random_rows(seed, rows=40, length=6, vocab=3, ends=0.1):
    generator = np.random.default_rng(seed)
    cells = generator.integers(0, vocab, (rows, length)).astype(np.uint32)
    cells[generator.random((rows, length)) < ends] = END
    return sorted_rows(cells)


def brute_force(rows):
    """Count every prefix of every row, cut before its first END, with a dictionary."""
    counts = Counter()
    for row in rows.tolist():
        kept = row[: row.index(END)] if END in row else row
        counts.update(tuple(kept[:stop]) for stop in range(1, len(kept) + 1))
    return counts


def as_counts(tree):
    """Return {path: count} of a tree."""
    paths = []
    for token, parent in zip(tree.tokens.tolist(), tree.parents.tolist(), strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    assert [len(path) for path in paths] == tree.depths.tolist()
    return dict(zip(paths, tree.counts.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_all_prefixes_are_counted_as_a_dictionary_counts_them(seed):
    rows = random_rows(seed, rows=1 + 7 * seed)
    assert as_counts(frequent_prefixes(rows, END)) == dict(brute_force(rows))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("nodes", [1, 5, 64, 1000])
def test_the_most_frequent_prefixes_are_kept_and_form_a_tree(seed, nodes):
    rows = random_rows(seed, rows=200, vocab=4)
    expected = brute_force(rows)
    kept = as_counts(frequent_prefixes(rows, END, nodes))
    assert len(kept) == min(nodes, len(expected))
    assert all(expected[path] == count for path, count in kept.items())
    assert all(path[:-1] in kept for path in kept if len(path) > 1)
    left_out = [count for path, count in expected.items() if path not in kept]
    assert min(kept.values()) >= max(left_out, default=0)


def test_ties_go_to_the_shorter_prefix_then_to_the_smaller_token():
    rows = sorted_rows(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.uint32))
    assert set(as_counts(frequent_prefixes(rows, END, 4))) == {(1,), (4,), (7,), (1, 2)}


def test_nothing_gives_an_empty_tree():
    assert len(frequent_prefixes(np.zeros((0, 5), np.uint32), END, 4).tokens) == 0
    ended = np.full((3, 4), END, dtype=np.uint32)
    assert len(frequent_prefixes(ended, END, 4).tokens) == 0


def test_tokens_behind_the_end_of_a_document_do_not_count():
    rows = sorted_rows(np.array([[1, END, 5], [1, END, 6], [1, 2, 2]], dtype=np.uint32))
    assert as_counts(frequent_prefixes(rows, END)) == {(1,): 3, (1, 2): 1, (1, 2, 2): 1}


@pytest.mark.parametrize("seed", range(8))
def test_the_released_cut_counts_every_path_and_drops_the_longest(seed):
    tree = frequent_prefixes(random_rows(seed, rows=100, ends=0.0), END, 64)
    cut = trim_to_path_tokens(tree, 64)
    before, after = as_counts(tree), as_counts(cut)
    assert sum(len(set(path)) for path in before) > 64 >= sum(len(set(path)) for path in after)
    assert set(after) < set(before)
    assert all(path[:-1] in after for path in after if len(path) > 1)
    dropped = [len(set(path)) for path in before if path not in after]
    assert min(dropped) >= max(len(set(path)) for path in after)
    assert sum(len(set(path)) for path in after) + min(dropped) > 64


def test_the_released_cut_leaves_one_chain_of_ten_alone():
    """1 + 2 + ... + 10 = 55: the released code keeps a single continuation whole."""
    chain = frequent_prefixes(np.arange(10, dtype=np.uint32)[None], END, 64)
    assert as_counts(trim_to_path_tokens(chain, 64)) == as_counts(chain)
    assert len(trim_to_path_tokens(chain, 54).tokens) == 9


def test_a_continuation_ends_before_a_stop_token():
    rows = random_rows(3, rows=200, ends=0.1)
    stops = {2, 5}
    cut = np.where(np.isin(rows, list(stops)), END, rows).astype(np.uint32)
    got = as_counts(frequent_prefixes(rows, END, stops=stops))
    assert got == dict(brute_force(cut)) and got
    assert not any(stops & set(path) for path in got)
    assert stops & {path[-1] for path in as_counts(frequent_prefixes(rows, END))}
