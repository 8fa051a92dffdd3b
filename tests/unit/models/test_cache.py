"""The key-value cache: what is kept, moved and forgotten."""

import pytest
import torch

from specbench.cache import KVCache, LengthCache


def filled(rows):
    """A cache whose entries name their row and slot."""
    cache = KVCache(2, rows, 1, 16, 1, torch.float32, torch.device("cpu"))
    slots = torch.arange(10.0) + 100 * torch.arange(float(rows))[:, None]
    keys = slots.view(rows, 1, 10, 1)
    for layer in range(2):
        cache.write(layer, keys + 1000 * layer, -keys)
    cache.advance(10)
    return cache


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2, 5], [1], []])
def test_keeping_one_path_in_all_rows_equals_keeping_it_row_by_row(rows, kept):
    one, other = filled(rows), filled(rows)
    one.keep([4] * rows, [kept] * rows)
    LengthCache.keep(other, [4] * rows, [list(kept) for _ in range(rows)])
    assert one.lengths == other.lengths == [4 + len(kept)] * rows
    for layer in range(2):
        end = 4 + len(kept)
        assert torch.equal(one.keys[layer][:, :, :end], other.keys[layer][:, :, :end])
        wanted = torch.tensor([*range(4), *(4 + index for index in kept)])
        assert torch.equal(one.values[layer][0, 0, :end, 0], -wanted.float())


def test_rows_may_keep_different_paths():
    cache = filled(2)
    cache.keep([4, 6], [[0, 3], [1]])
    assert cache.lengths == [6, 7]
    assert cache.keys[0][0, 0, 5, 0] == 7 and cache.keys[0][1, 0, 6, 0] == 107
