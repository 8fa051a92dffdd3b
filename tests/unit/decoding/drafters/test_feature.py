"""Heads of features: the target's law for any head, and drafts that are the head's own.

A wrong feature costs acceptance and not exactness, so drafts are compared with those of the head
computed anew: from the target's states of all committed tokens, in one forward without a cache.
"""

from __future__ import annotations

import pytest
import torch

from specbench.audit.heads import with_head
from specbench.decoding import draft_verify, ground
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import feature
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
from specbench.models.base import Taps, View
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


def anew(models, committed, path):
    """Return the law [V] that a head has behind committed and drafted tokens, without a cache."""
    head, target = models.head, models.target
    taps, made = Taps(head.taps, every=True), Taps((head.made,))
    target.forward(torch.tensor([committed[:-1]]), target.new_cache(1, 256), View(taps=taps))
    features, tokens = head.features(tuple(taps.states)), list(committed[1:])
    for token in (*path, None):
        inputs = head.inputs(torch.tensor([tokens]), features)
        logits = head.forward(inputs, head.new_cache(1, 256), View(taps=made))
        tokens.append(token)
        features = torch.cat([features, made.states[0][:, -1:]], 1)
    return logits[0, -1].softmax(-1)


def own_drafts(models, kind, count=60):
    """Yield for every round whether its draft is the one that the head makes anew."""
    decoder = composed(kind, length=3)
    rounds = []
    decoder.probe = lambda scored, verdict: rounds.append((scored.tree, verdict))
    committed = [*PROMPT, generate(decoder, models, Law(), PROMPT, count).tokens[0]]
    accepted = 0
    for tree, verdict in rounds:
        tokens = tree.tokens[0].tolist()
        for record, parent in enumerate(tree.draws.parents):
            if tree.draws.law is not None:
                path = [tokens[node] for node in tree.paths(parent)]
                law = anew(models, committed, path)
                yield torch.allclose(tree.draws.law[0, record], law, atol=1e-9)
        if tree.draws.law is None and tree.size:
            top = {token for token, depth in zip(tokens, tree.depths, strict=True) if depth < 2}
            yield top == set(anew(models, committed, ()).topk(len(top)).indices.tolist())
        committed += verdict.tokens
        accepted += len(verdict.path)
    assert accepted > count / 8, "too few drafts are accepted for this to say anything"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_drafts_are_the_heads_own(kind, family):
    for seed in range(2):
        models = with_head(table_pair(vocab=4, seed=seed), [family])
        assert all(own_drafts(models, kind))


def _made_features(original):
    def observe(self, session, outcome):
        original(self, session, outcome)
        self._features = torch.zeros_like(self._features)

    return observe


def _rootward(states, path):
    return tuple(state[:, : len(path) + 1] for state in states)


MUTATIONS = {
    "the states of other rows than the path's": (draft_verify, "_kept", _rootward),
    "no features of what was accepted": (
        feature._FeatureDrafting,
        "observe",
        _made_features(feature._FeatureDrafting.observe),
    ),
    "a token with its own feature": (
        ground.Features,
        "plant",
        lambda self, committed: _shifted(self, committed),
    ),
    "a node with the feature of the root": (
        ground.Features,
        "feed",
        lambda self, tokens, parents, mask: _from_root(self, tokens, mask),
    ),
}


def _shifted(self, committed):
    start = self._role.cache.lengths[0]
    tokens = torch.tensor([committed[start:-1]])
    logits = self._feed(tokens, self._features, last=1)
    self._base = self._role.cache.lengths[0]
    return logits[:, -1]


def _from_root(self, tokens, mask):
    made = self._made
    behind = made[:1].expand(len(tokens), -1)
    logits = self._feed(tokens[None], behind[None], mask)[0]
    self._made = torch.cat([made, self._made])
    return logits


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_would_be_noticed(name, monkeypatch):
    place, attribute, broken = MUTATIONS[name]
    monkeypatch.setattr(place, attribute, broken)
    kinds = ("static",) if "rows" in name else ("chain",)
    found = []
    for seed in range(2):
        models = with_head(table_pair(vocab=4, seed=seed), ["eagle1"])
        found += [own for kind in kinds for own in own_drafts(models, kind)]
    assert not all(found)


def test_drafted_entries_that_stay_would_be_noticed(monkeypatch):
    """Mutation: what was accepted is not fed again with true features."""

    def keep(self, slots):
        self._role.cache.keep([self._base - 1], [slots])

    plant = ground.Features.plant

    def careless(self, committed):
        missing = len(committed) - 1 - self._role.cache.lengths[0]
        self._features = self._features[:, -missing:]
        return plant(self, committed)

    monkeypatch.setattr(ground.Features, "keep", keep)
    monkeypatch.setattr(ground.Features, "plant", careless)
    found = []
    for seed in range(2):
        models = with_head(table_pair(vocab=4, seed=seed), ["eagle1"])
        found += list(own_drafts(models, "chain"))
    assert not all(found)


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
