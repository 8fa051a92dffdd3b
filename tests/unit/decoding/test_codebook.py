"""Neighbours in a codebook: by distance, the lowest index on ties, never the code itself."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding import codebook as module
from specbench.decoding.codebook import Neighbours, image_of, nearest_codes
from specbench.errors import ConfigError
from tests.unit.decoding.parts import table_pair
from tests.unit.decoding.pictures import FIRST, toy_picture


def by_sorting(codebook, count):
    rows = []
    for own, code in enumerate(codebook.double()):
        distances = (codebook.double() - code).square().sum(1).sqrt().tolist()
        others = [index for index in range(len(codebook)) if index != own]
        rows.append(sorted(others, key=lambda index: (distances[index], index))[:count])
    return torch.tensor(rows, dtype=torch.int32)


@pytest.mark.parametrize("chunk", [7, 512])
def test_neighbours_are_those_of_sorting(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    codebook = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    for count in (1, 10, 39):
        got = nearest_codes(codebook, count)
        assert got.dtype == torch.int32
        assert torch.equal(got, by_sorting(codebook, count))


def test_equal_distances_and_equal_codes_come_in_order_of_index():
    grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))
    codebook = torch.cat([grid, grid[:5]])  # a lattice full of ties, five codes twice
    got = nearest_codes(codebook, 29)
    assert torch.equal(got, by_sorting(codebook, 29))
    assert got[0, 0] == 25 and got[25, 0] == 0
    assert not (got == torch.arange(30)[:, None]).any()


def test_more_neighbours_than_codes_are_all_codes():
    assert nearest_codes(torch.randn(6, 2), 1000).shape == (6, 5)


def test_tokens_that_are_no_codes_have_no_neighbours():
    models = toy_picture(codes=4, codebook=torch.tensor([[0.0], [1.0], [3.0], [3.5]]))
    neighbours = Neighbours.of_image(models.image, 2, "rows")
    tokens = torch.tensor([0, FIRST, FIRST + 3, FIRST + 4])
    near, inside = neighbours.of(tokens)
    assert inside.flatten().tolist() == [False, True, True, False]
    assert near[1:3].tolist() == [[FIRST + 1, FIRST + 2], [FIRST + 2, FIRST + 1]]


def test_a_model_of_text_is_refused():
    with pytest.raises(ConfigError, match="needs an image model"):
        image_of(table_pair(), "LANTERN")
