"""The numbers of a round travel together and are still those of their positions and purposes."""

from __future__ import annotations

import torch

from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Scored
from specbench.law import Law
from specbench.rng import Purpose, Streams

STREAMS = (Streams(3, "one"), Streams(3, "two"))
POSITIONS = (7, 40)


def scored(tree):
    logits = torch.zeros(2, tree.size + 1, 5)
    return Scored(tree, logits, Law(), None, STREAMS, POSITIONS)


def test_a_chains_tests_corrections_and_bonus():
    numbers = scored(DraftTree.chain(torch.zeros(2, 3, dtype=torch.int64))).chain_numbers
    for row, (streams, start) in enumerate(zip(STREAMS, POSITIONS, strict=True)):
        assert numbers.tests[row].tolist() == streams.uniforms(start, 3, Purpose.ACCEPT)
        *corrections, bonus = numbers.following[row].tolist()
        assert corrections == streams.uniforms(start, 3, Purpose.RESIDUAL)
        assert bonus == streams.uniforms(start, 4, Purpose.SAMPLE)[-1]


def test_a_node_has_the_number_of_its_position():
    parents = (-1, -1, 0, 2, 1)
    tree = DraftTree(torch.zeros(2, 5, dtype=torch.int64), parents)
    numbers = scored(tree).target_numbers()
    for row, (streams, start) in enumerate(zip(STREAMS, POSITIONS, strict=True)):
        expected = [streams.uniform(start + d, Purpose.SAMPLE) for d in (0, 1, 1, 2, 3, 2)]
        assert numbers[row].tolist() == expected
