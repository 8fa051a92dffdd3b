"""Losses of heads against values worked out by hand, and the places that they learn."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.training.losses.features import (
    feature_loss,
    frequent_ids,
    noisy,
    reduced,
    soft_cross_entropy,
)
from specbench.training.losses.levels import guessed, level_loss

LEARNED = torch.tensor(
    [
        [False, False, True, True, True, True, False],
        [False, True, True, False, False, True, True],
    ]
)


def test_a_head_guesses_learned_tokens_behind_learned_ones() -> None:
    """Place t of head k: tokens t + 1 and t + 2 + k are of answers."""
    for level in range(3):
        places = guessed(LEARNED, level)
        for row in range(2):
            for t in range(7):
                inside = t + 2 + level < 7
                wanted = inside and LEARNED[row, t + 1] and LEARNED[row, t + 2 + level]
                assert bool(places[row, t]) == bool(wanted), (level, row, t)
    assert guessed(LEARNED, 0)[0].tolist() == [False, True, True, True, False, False, False]
    assert not guessed(LEARNED, 6).any()


def test_later_heads_weigh_less() -> None:
    laws = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]], dtype=torch.float64)
    logits = [laws.log(), laws[:1].log()]
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    found = level_loss(logits, labels, 0.8)
    wanted = math.log(2) + math.log(8) + 0.8 * math.log(4)
    assert found.value.item() == pytest.approx(wanted) and found.places == 2
    assert level_loss(logits, labels, 1.0).value.item() == pytest.approx(wanted + 0.2 * math.log(4))


def test_smooth_distance_of_features() -> None:
    made = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
    assert feature_loss(made, torch.zeros_like(made)).item() == pytest.approx((0.125 + 1.5) / 2)


def test_cross_entropy_under_the_targets_law() -> None:
    target = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    draft = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).log()
    assert soft_cross_entropy(target, draft).item() == pytest.approx(math.log(4))


def test_a_law_over_a_draft_vocabulary_is_renormalised_and_its_gaps_are_left_out() -> None:
    target = torch.tensor(
        [[0.1, 0.2, 0.3, 0.4], [0.1, 0.6, 0.2, 0.1], [0.2, 0.1, 0.6, 0.1]], dtype=torch.float64
    ).log()
    law, known = reduced(target, torch.tensor([0, 2, 3]))
    assert known.tolist() == [True, False, True]
    torch.testing.assert_close(law.softmax(-1)[0], torch.tensor([1, 3, 4], dtype=torch.float64) / 8)


def test_the_draft_vocabulary_is_of_the_most_frequent_ids() -> None:
    tokens = torch.tensor([5, 5, 5, 2, 2, 0, 7])
    assert frequent_ids(tokens, 3, 9).tolist() == [0, 2, 5]


def test_noise_is_uniform_narrower_in_long_texts_and_follows_its_source() -> None:
    features = torch.zeros(1, 64, 500)
    found = noisy(features, 0.2, torch.Generator().manual_seed(1))
    assert found.abs().max() <= 0.1 * 8 and found.abs().max() > 0.099 * 8
    assert found.mean().abs() < 0.01
    assert torch.equal(found, noisy(features, 0.2, torch.Generator().manual_seed(1)))
