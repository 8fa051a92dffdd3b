"""How two boxes stand to each other, by the official rule."""

from __future__ import annotations

import pytest

from specbench.zoo.pictures.geneval_rules import relations


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (50, 0, {"right of"}),
        (-50, 0, {"left of"}),
        (0, 50, {"below"}),
        (0, -50, {"above"}),
        (50, 50, {"right of", "below"}),
        (50, 20, {"right of"}),
        (0, 0, set()),
        (3, -3, set()),
        # A tenth of both sizes is taken off each axis; what is left must exceed half the distance.
        (7.5, 0, set()),
        (8.5, 0, {"right of"}),
        (25, 12.5, {"right of"}),
        (-25, 25, {"left of", "below"}),
    ],
)
def test_relations(x: float, y: float, expected: set[str]) -> None:
    first = (x, y, x + 20, y + 20)
    assert relations(first, (0.0, 0.0, 20.0, 20.0)) == expected


def test_an_offset_within_a_tenth_of_both_sizes_is_no_relation() -> None:
    other = (0.0, 0.0, 20.0, 20.0)
    assert relations((4.0, 0.0, 24.0, 20.0), other) == set()
    # Beyond by 4.1 - 4 of 4.1: less than half of the distance.
    assert relations((4.1, 0.0, 24.1, 20.0), other) == set()
    assert relations((8.1, 0.0, 28.1, 20.0), other) == {"right of"}
    assert relations((4.1, 0.0, 24.1, 20.0), other, 0.0) == {"right of"}
