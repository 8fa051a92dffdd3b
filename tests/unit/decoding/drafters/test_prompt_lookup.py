"""Prompt lookup against the authors' rule, written as it reads."""

from __future__ import annotations

import pytest

from specbench.decoding.drafters.prompt_lookup import PromptLookup
from specbench.law import Law
from tests.unit.decoding.drafters.stores import paths_of, watch
from tests.unit.decoding.parts import generate, pld, table_pair


def copied(text, longest, count, full):
    """Return what followed the first earlier occurrence of the longest suffix that has one."""
    for size in range(longest, 0, -1):
        for start in range(len(text) - size):
            after = text[start + size : start + size + count]
            if text[start : start + size] == text[-size:] and (len(after) == count or not full):
                return after
    return []


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_proposals_are_those_of_the_notebook(full, seed):
    """In full alone, as the notebook and Spec-Bench do, or what there is, as transformers does."""
    decoder = pld(4, allow_short=not full)
    assert isinstance(decoder.drafter, PromptLookup)
    seen, prompt = watch(decoder), (0, 1, 2, 0, 1, 3, 0, 1, 2)
    models = table_pair(vocab=4, seed=seed, sharpness=3.0)
    tokens = generate(decoder, models, Law(temperature=0), prompt, 60).tokens
    text = [*prompt, *tokens]
    proposed = 0
    for scored, _ in seen[:-4]:
        paths = paths_of(scored.tree)
        expected = copied(text[: scored.positions[0]], 3, 4, full)
        assert list(paths[-1]) == expected if paths else not expected
        proposed += bool(paths)
    assert proposed > 3
