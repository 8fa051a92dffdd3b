"""DEL's statistics of exits against sums that are written as they read."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from specbench.decoding.search.exits import Exits, best_exit


def searched(acceptance, layers, longest):
    """Try every exit and length."""
    found = []
    for blocks in range(1, layers):
        rate = acceptance[blocks - 1]
        for drafted in range(longest):
            tokens = 1.0
            for _ in range(drafted):
                tokens = 1 + rate * tokens
            found.append((tokens / ((layers - blocks) + (drafted + 1) * blocks), -blocks))
    return -max(found)[1]


@pytest.mark.parametrize("seed", range(20))
def test_the_exit_is_that_of_a_search_over_exits_and_lengths(seed):
    random = Random(seed)
    layers = random.randrange(2, 13)
    acceptance = [random.random() for _ in range(layers - 1)]
    assert best_exit(np.array(acceptance), layers, 18) == searched(acceptance, layers, 18)


def test_of_equal_exits_the_first_and_of_useless_ones_too():
    assert best_exit(np.full(11, 0.8), 12, 18) == 1
    assert best_exit(np.zeros(11), 12, 18) == 1
    assert best_exit(np.array([0.1] * 5 + [0.99] * 6), 12, 18) == 6


def test_rounds_fade_and_positions_behind_a_miss_of_the_present_exit_do_not_count():
    exits = Exits(layers=3, memory=0.5, longest=4)
    assert exits.blocks == 1 and exits.threshold == 0.0
    agree = np.array([[True, False, True], [True, True, True]])
    sure = np.array([[0.9, 0.3, 0.8], [0.5, 0.7, 0.6]])
    exits.update(agree, sure)  # exit 1 misses at the second position
    assert exits.acceptance.tolist() == [0.5, 1.0]
    exits.blocks = 1
    assert exits.threshold == pytest.approx((0.9 + 0.3) / 2)
    exits.update(np.array([[False, True], [True, True]]), np.array([[0.2, 0.9], [0.4, 0.4]]))
    assert exits.acceptance.tolist() == pytest.approx([0.5 / 2.0, 1.0])
    exits.blocks = 1
    assert exits.threshold == pytest.approx((0.45 / 0.5 + (0.15 + 0.2) / 1.5) / 2)


def test_positions_of_the_prompt_count_whatever_the_exit_said_there():
    exits = Exits(layers=2, memory=0.5)
    agree = np.array([[False, True, True, False, True]])
    exits.update(agree, np.full((1, 5), 0.5), context=2)
    assert exits.acceptance.tolist() == [2 / 4]
