"""Who sees whom in PARD's and DFlash's training, by hand, and what counts."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.training.losses.blocks import (
    blocks_see,
    drop_places,
    masks_see,
    offset_weights,
    random_anchors,
)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_dropped_places_are_nested():
    """Each place of a copy has its predecessor in the copy before, as its masks must be there."""
    positions, copies = drop_places(40, 6, 0.7, 0.2, source())
    kept = [set(positions[copies == copy].tolist()) for copy in range(6)]
    assert kept[0] == set(range(40))
    for copy in range(1, 6):
        assert len(kept[copy]) == int(40 * max(0.7**copy, 0.2))
        assert all(place - 1 in kept[copy - 1] for place in kept[copy])
    assert not torch.equal(positions, drop_places(40, 6, 0.7, 0.2, source(1))[0])


def test_a_mask_sees_the_text_before_its_gap_and_its_own_chain():
    positions, copies = drop_places(7, 3, 1.0, 0.0, source())
    sees = masks_see(positions, copies)
    for row, (place, copy) in enumerate(zip(positions.tolist(), copies.tolist(), strict=True)):
        found = {
            (at, number)
            for at, number, seen in zip(
                positions.tolist(), copies.tolist(), sees[row].tolist(), strict=True
            )
            if seen
        }
        text = {(at, 0) for at in range(place - copy + 1)}
        chain = {(place - copy + number, number) for number in range(1, copy + 1)}
        assert found == text | chain


def test_one_copy_is_causal_order():
    positions, copies = drop_places(5, 1, 0.7, 0.2, source())
    assert torch.equal(masks_see(positions, copies), torch.ones(5, 5).tril().bool())


def test_anchors_are_learned_and_so_is_what_follows_them():
    learned = torch.zeros(2, 12, dtype=torch.bool)
    learned[0, 4:9] = True
    learned[1, 3:5] = True
    anchors, there = random_anchors(learned, 3, source())
    assert anchors.shape == there.shape == (2, 3)
    assert there.sum(1).tolist() == [3, 1] and anchors[1][there[1]].tolist() == [3]
    assert set(anchors[0].tolist()) <= {4, 5, 6, 7} and len(set(anchors[0].tolist())) == 3
    drawn = {tuple(random_anchors(learned, 3, source(seed))[0][0].tolist()) for seed in range(20)}
    assert len(drawn) == 4


def test_a_block_sees_the_context_before_its_anchor_and_itself():
    sees = blocks_see(torch.tensor([[2, 4]]), 6, 3)
    assert sees.shape == (1, 6, 12)
    for token in range(6):
        block = token // 3
        context = [place < (2, 4)[block] for place in range(6)]
        own = [other // 3 == block for other in range(6)]
        assert sees[0, token].tolist() == context + own


@pytest.mark.parametrize("decay", [1.0, 4.0, math.inf])
def test_weights_fall_with_the_offset(decay):
    weights = offset_weights(5, decay)
    assert weights[0] == 0 and weights.sum().item() == pytest.approx(4)
    for offset in range(1, 4):
        ratio = weights[offset + 1] / weights[offset]
        assert ratio.item() == pytest.approx(math.exp(-1 / decay))
