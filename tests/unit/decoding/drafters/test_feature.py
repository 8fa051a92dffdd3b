"""Heads of features keep the target's law, whatever their weights are."""

from __future__ import annotations

import pytest
import torch

from specbench.audit.heads import with_head
from specbench.decoding import ground
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.feature import FeatureDrafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.eagle2_dynamic import Eagle2Dynamic
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.verifiers.point_tree import PointTree
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.law import Law
from specbench.models.heads.base import FeatureHead
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

FAMILIES = ("eagle1", "eagle3")
LAWS = {
    "plain": Law(),
    "warped": Law(temperature=0.8, top_k=2, repetition_penalty=1.3),
}
PROMPT = (0, 1, 0, 2, 0, 1)


def composed(kind, length=2):
    """Return a small form of eagle1_chain, eagle1, or eagle2 and eagle3."""
    drafter = FeatureDrafter()
    if kind == "chain":
        return DraftVerify(drafter, Chain(), Constant(length), TokenSD())
    if kind == "static":
        topology = StaticTree(paths=[[0], [1], [0, 0]])
        return DraftVerify(drafter, topology, Constant(2), TreeWalk(RecursiveRejection(False)))
    topology = Eagle2Dynamic(top_k=2, nodes=3, depth=2)
    return DraftVerify(drafter, topology, Constant(2), TreeWalk(PointTree()))


KINDS = ("chain", "static", "dynamic")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_law_is_the_targets_behind_any_head(kind, law, family):
    """Two drafted tokens for the warped law, one for the plain law over all tokens."""
    models = with_head(table_pair(), [family])
    got = output_law(composed(kind, length=1 if law.plain else 2), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_token_inside_a_draft_keeps_the_law(kind):
    models = with_head(table_pair(), ["eagle3"])
    got = output_law(composed(kind), models, Law(), PROMPT, 3, stop={1})
    assert distance(got, true_law(models, Law(), PROMPT, 3, stop={1})) < 1e-12


def test_a_bonus_from_the_heads_law_would_be_noticed(monkeypatch):
    """Mutation: after full acceptance the next token comes from the last draft law."""
    right = TokenSD.leftover

    def wrong(self, target, draft, accepted):
        full = (accepted == draft.shape[1])[:, None]
        return torch.where(full, draft[:, -1], right(self, target, draft, accepted))

    monkeypatch.setattr(TokenSD, "leftover", wrong)
    models = with_head(table_pair(), ["eagle3"])
    got = output_law(composed("chain", 1), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


def test_a_law_that_is_not_renormalised_would_be_noticed(monkeypatch):
    """Mutation: the head's law is cut to its vocabulary from a law over more ids."""
    warp = ground.Law.probabilities

    def cut(self, logits, seen=None):
        law = warp(self, logits, seen)
        return law * 0.8 if bool((logits == -torch.inf).any()) else law

    monkeypatch.setattr(ground.Law, "probabilities", cut)
    models = with_head(table_pair(), ["eagle3"])
    got = output_law(composed("chain"), models, Law(), PROMPT, 3)
    monkeypatch.undo()
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_work_of_a_head_is_counted_as_the_drafts(family):
    models = with_head(table_pair(vocab=5), [family])
    assert isinstance(models.head, FeatureHead)
    generation = generate(composed("chain"), models, Law(), PROMPT, 24)
    first, *rounds = (round_.count for round_ in generation.rounds)
    assert first.work["draft"] == (1, len(PROMPT) - 1)
    accepted = 0  # entries that are fed again with true features
    for count in rounds:
        assert count.work["target"].forwards == 1
        if count.proposed == 2:
            assert count.work["draft"] == (2, 1 + accepted + 1)
        accepted = count.accepted
    assert generation.tokens == generate(composed("chain"), models, Law(), PROMPT, 24).tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_is_plain_decodings(kind, family):
    for seed in range(4):
        models = with_head(table_pair(vocab=5, sharpness=2.0, seed=seed), [family])
        plain = generate(Autoregressive(), models, Law(temperature=0.0), PROMPT, 40)
        assert generate(composed(kind), models, Law(temperature=0.0), PROMPT, 40).tokens == (
            plain.tokens
        )
