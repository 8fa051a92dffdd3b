"""Ranking, entropy, emission and branches."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.decoding.loops.branches import Branches, parallel_chains
from specbench.decoding.loops.scoring import entropy, ranked, refuse_sampling
from specbench.decoding.ranges import check_number, check_whole
from specbench.errors import ConfigError
from specbench.law import Law


def test_ranked_is_a_stable_sort_whatever_top_k_does():
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 3, 7):
        logits = torch.randint(0, 4, (50, 7), generator=generator).double()
        whole_order = logits.sort(dim=-1, descending=True, stable=True)
        got = ranked(logits, count)
        assert torch.equal(logits.gather(-1, got), whole_order.values[:, :count])
        assert (got[:, 1:] > got[:, :-1])[
            whole_order.values[:, 1:count] == whole_order.values[:, : count - 1]
        ].all()
    assert ranked(torch.zeros(1, 3), 9).tolist() == [[0, 1, 2]]
    assert ranked(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 3).tolist() == [[1, 2, 3]]


def test_entropy_in_nats():
    laws = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    assert entropy(laws).tolist() == pytest.approx([math.log(4), 0.0])


@pytest.mark.parametrize(("value", "low", "high"), [(-1, 0, 1), (1.5, 0, 1), (math.nan, 0, 9)])
def test_a_number_out_of_range_is_refused_with_the_range(value, low, high):
    with pytest.raises(ConfigError, match="alpha=") as caught:
        check_number("alpha", value, low, high)
    assert f"{low}" in caught.value.why and f"{high}" in caught.value.why
    with pytest.raises(ConfigError):
        check_number("alpha", ".inf", low, high)
    check_number("alpha", low, low, high)
    check_number("alpha", high, low, high)


@pytest.mark.parametrize("value", [0, 2.5, "4", math.inf])
def test_a_count_is_whole_and_positive(value):
    with pytest.raises(ConfigError, match="width="):
        check_whole("width", value, 1)
    check_whole("width", 1, 1)


def test_sampling_is_refused_in_three_parts():
    refuse_sampling(Law(temperature=0), "X")
    with pytest.raises(ConfigError) as caught:
        refuse_sampling(Law(temperature=0.7), "X")
    error = caught.value
    assert "0.7" in error.what and "deterministic" in error.why and "temperature=0" in error.fix


def test_a_branch_sees_its_own_tokens_alone():
    branches = Branches(2)
    first = branches.grow([0, 1])
    assert first.ancestors.tolist() == [[True, False], [False, True]]
    second = branches.grow([1])
    assert second.ancestors.tolist() == [[False, True, True]]
    assert second.offsets.tolist() == [0, 0, 1]
    branches.fork([1, 1])
    third = branches.grow([0, 1])
    assert third.ancestors.tolist() == [
        [False, True, True, True, False],
        [False, True, True, False, True],
    ]
    assert third.offsets.tolist() == [0, 0, 1, 2, 2]
    assert branches.slots(0) == [1, 2, 3] and branches.slots(1) == [1, 2, 4]


def test_one_branch_is_a_chain_and_needs_no_mask():
    branches = Branches(1)
    assert branches.grow([0]) is None and branches.grow([0]) is None
    branches.fork([0, 0])
    assert branches.grow([0, 1]) is not None
    branches.fork([1])
    assert branches.grow([0]) is not None, "a slot of a dead branch lies between"


def test_chains_side_by_side_share_their_masks():
    masks = parallel_chains(3, 2)
    assert masks is parallel_chains(3, 2)
    assert masks[1].ancestors.int().tolist() == [
        [1, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 1],
    ]
