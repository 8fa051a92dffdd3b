"""The walk keeps the law of whole decoders, lazily and judged at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2

from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.top_plus_one import TopPlusOne
from specbench.decoding.tree import DraftTree, DrawKind
from specbench.decoding.verifiers.greedy_draft import GreedyDraft
from specbench.decoding.verifiers.kseq import KSequential
from specbench.decoding.verifiers.point_tree import PointTree
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.law import History, Law
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from tests.unit.decoding.enumeration import Script, distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, random_trees, table_pair
from tests.unit.decoding.verifiers.nodes import F5_P, POINT, WOR, WR, node_scored, outcomes
from tests.unit.decoding.verifiers.trees import Chains, Widths, drawn_tree, tree_decoder

PROMPT = (0, 1)
TOLERANCE = 1e-12
RULES = {
    "rrs_wr": (RecursiveRejection(True), WR),
    "rrs_wor": (RecursiveRejection(False), WOR),
    "kseq": (KSequential(), WR),
    "greedy_draft": (GreedyDraft(), DrawKind.HYBRID),
    "point_tree": (PointTree(), POINT),
}
NARROW = Law(temperature=1.2, top_k=2)
PENALTY = Law(top_k=2, repetition_penalty=1.7)
COMPOSITIONS = {
    "rrs_wr on chains": (Chains(2, 2), RecursiveRejection(True)),
    "kseq on chains": (Chains(2, 2), KSequential()),
    "rrs_wor on widths": (Widths(2, 1), RecursiveRejection(False)),
    "greedy_draft": (TopPlusOne(2, 1), GreedyDraft()),
    "point_tree": (Widths(2, 2, kind=POINT), PointTree()),
    "point_tree on draws": (Widths(2, 1), PointTree()),
    "rrs_wor on a chain": (Chain(), RecursiveRejection(False)),
    "kseq on a chain": (Chain(), KSequential()),
}
CASES = [
    pytest.param(
        law,
        name,
        id=f"{name}-{label}",
        marks=[pytest.mark.slow] if name == "kseq on chains" else [],
    )
    for name in COMPOSITIONS
    for label, law in (("narrow", NARROW), ("penalty", PENALTY))
]


@pytest.mark.parametrize(("law", "name"), CASES)
def test_law_equals_the_targets(name, law):
    topology, rule = COMPOSITIONS[name]
    models = table_pair()
    depth = 2 if isinstance(topology, Chain) else 9
    got = output_law(tree_decoder(topology, TreeWalk(rule), depth), models, law, PROMPT, 4)
    assert abs(sum(got.values()) - 1) < TOLERANCE
    assert distance(got, true_law(models, law, PROMPT, 4)) < TOLERANCE


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_law_equals_the_targets_without_top_k(name):
    topology, rule = COMPOSITIONS[name]
    models = table_pair()
    depth = 2 if isinstance(topology, Chain) else 9
    got = output_law(tree_decoder(topology, TreeWalk(rule), depth), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) < TOLERANCE


@pytest.mark.parametrize("name", ["rrs_wr on chains", "rrs_wor on widths", "greedy_draft"])
def test_law_when_all_nodes_are_judged_at_once(name):
    topology, rule = COMPOSITIONS[name]
    models = table_pair()
    law = Law(temperature=1.2, top_k=2)
    got = output_law(tree_decoder(topology, TreeWalk(rule, True)), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rrs_wr on chains", "kseq on chains", "rrs_wor on widths"])
def test_early_and_late_triples_by_chi_square(name):
    """With the engine's own random numbers, 7 tokens a run; false alarm 1e-4 for each triple.

    Enumeration proves the law of the choices; this looks at the numbers that make them, over
    caches, rollbacks and late rounds. 27 outcomes of a triple leave 26 degrees of freedom.
    """
    topology, rule = COMPOSITIONS[name]
    models = table_pair(order=1)
    decoder = tree_decoder(topology, TreeWalk(rule))
    runs = 5_000
    truth = true_law(models, Law(), PROMPT, 7)
    early, late = torch.zeros(27), torch.zeros(27)
    for seed in range(runs):
        tokens = generate(decoder, models, Law(), PROMPT, 7, seed=seed).tokens
        early[9 * tokens[0] + 3 * tokens[1] + tokens[2]] += 1
        late[9 * tokens[4] + 3 * tokens[5] + tokens[6]] += 1
    for counts, start in ((early, 0), (late, 4)):
        expected = torch.zeros(27)
        for tokens, weight in truth.items():
            a, b, c = tokens[start : start + 3]
            expected[9 * a + 3 * b + c] += weight * runs
        statistic = float(((counts - expected) ** 2 / expected).sum())
        assert statistic < chi2.ppf(1 - 1e-4, 26)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RULES)
def test_both_ways_of_walking_agree_bit_for_bit(name, dtype):
    rule, kind = RULES[name]
    depths = []
    for seed in range(30):
        scored = drawn_tree(kind, seed, dtype=dtype)
        lazy = TreeWalk(rule, batched=False).verify(scored)
        assert lazy == TreeWalk(rule, batched=True).verify(scored)
        depths += [len(verdict.path) for verdict in lazy]
    assert sum(depths) > 5 and min(depths) == 0


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("law", [Law(temperature=0), Law(temperature=0, repetition_penalty=1.6)])
def test_greedy_tokens_are_those_of_plain_decoding(name, law):
    rule, _ = RULES[name]
    for seed in range(3):
        models = table_pair(vocab=5, seed=seed)
        expected = generate(Autoregressive(), models, law, count=40).tokens
        for decoder in (
            random_trees(seed, TreeWalk(rule)),
            random_trees(seed, TreeWalk(rule, batched=True)),
            tree_decoder(Widths(3, 2, 1), TreeWalk(rule)),
            tree_decoder(TopPlusOne(3, 2), TreeWalk(rule)),
        ):
            assert generate(decoder, models, law, count=40).tokens == expected


def test_an_equal_draft_is_accepted_by_its_first_draw():
    models = table_pair(vocab=5)
    models = ModelPair("same", models.target, models.target)
    decoder = tree_decoder(Widths(2, 2, 2), TreeWalk(RecursiveRejection(False)))
    generation = generate(decoder, models, Law(), count=41)
    assert [r.count.emitted for r in generation.rounds[1:]] == [4] * 10


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (RecursiveRejection(False), DrawKind.NONE),
        (RecursiveRejection(False), WR),
        (RecursiveRejection(True), WOR),
        (KSequential(), WOR),
        (GreedyDraft(), WR),
        (GreedyDraft(), DrawKind.NONE),
        (RecursiveRejection(False), DrawKind.HYBRID),
    ],
)
def test_a_tree_that_the_rule_is_not_exact_for_is_refused(rule, kind):
    scored = node_scored(F5_P, (0, 1) if kind is not WR else (0, 0), kind, F5_P)
    with pytest.raises(ConfigError, match=f"cannot verify a tree of kind '{kind}'"):
        TreeWalk(rule).verify(scored)


def test_single_draws_are_the_same_with_and_without_replacement():
    one = node_scored(F5_P, (2,), WR, F5_P)
    other = replace(one, tree=replace(one.tree, draws=replace(one.tree.draws, kind=WOR)))
    for rule in (RecursiveRejection(True), RecursiveRejection(False)):
        assert TreeWalk(rule).verify(one) == TreeWalk(rule).verify(other)


def test_an_empty_tree_is_a_plain_step():
    logits = F5_P.log()[None, None]
    scored = replace(node_scored(F5_P, (2,), WR, F5_P), logits=logits)
    scored = replace(scored, tree=DraftTree.chain(torch.zeros(1, 0, dtype=torch.int64)))
    law = torch.zeros(5, dtype=torch.float64)
    for verdict, chance in outcomes(TreeWalk(RecursiveRejection(True)), scored):
        law[verdict.tokens[0]] += chance
    assert (law - F5_P).abs().max() < TOLERANCE


def test_the_bonus_follows_the_warped_law():
    """After full acceptance the token is drawn at the leaf's warped law, hot or cold."""
    for temperature in (0.5, 1.0):
        assert bonus_error(temperature) < TOLERANCE


def test_an_unwarped_bonus_is_caught(monkeypatch):
    draw = Script.draw

    def unwarped(self, probabilities, uniform):
        raw = probabilities**0.5
        return draw(self, raw / raw.sum(-1, keepdim=True), uniform)

    monkeypatch.setattr(Script, "draw", unwarped)
    assert bonus_error(0.5) > 1e-2


def bonus_error(temperature):
    scored = node_scored(F5_P, (2,), POINT, None, temperature)
    scored.logits[0, 0, torch.arange(5) != 2] = -torch.inf
    scored.logits[0, 1] = F5_P.log()
    law = torch.zeros(5, dtype=torch.float64)
    for verdict, chance in outcomes(TreeWalk(PointTree()), scored):
        assert verdict.path == (0,)
        law[verdict.next_token] += chance
    return (law - scored.law.probabilities(F5_P.log())).abs().max()


class PerPath:
    """Mutation: every leaf's path is judged by itself, and the longest wins."""

    def verify(self, scored):
        tree = scored.tree
        leaves = [node for node in range(tree.size) if not tree.children[node + 1]]
        best = None
        for leaf in leaves:
            path = tree.paths(leaf)
            rows = [0, *(node + 1 for node in path)]
            chain = DraftTree.chain(tree.tokens[:, list(path)])
            part = replace(scored, tree=chain, logits=scored.logits[:, rows])
            verdict = TreeWalk(PointTree()).verify(part)[0]
            verdict = verdict._replace(path=path[: len(verdict.path)])
            if best is None or len(verdict.path) > len(best.path):
                best = verdict
        return [best]


def test_judging_every_path_by_itself_is_caught():
    law = torch.zeros(5, dtype=torch.float64)
    for verdict, chance in outcomes(PerPath(), node_scored(F5_P, (2, 3), POINT, None)):
        law[verdict.tokens[0]] += chance
    assert (law - F5_P).abs().max() > 1e-2


def test_penalties_from_the_rounds_start_are_caught(monkeypatch):
    models = table_pair()
    law = Law(top_k=2, repetition_penalty=2.5)
    decoder = tree_decoder(Widths(2, 1), TreeWalk(RecursiveRejection(False)))
    truth = true_law(models, law, (0,), 4)
    assert distance(output_law(decoder, models, law, (0,), 4), truth) < TOLERANCE

    def at_the_start(self, tokens, ancestors):
        return self._seen[:, None].repeat(1, tokens.shape[1] + 1, 1)

    monkeypatch.setattr(History, "along", at_the_start)
    got = output_law(decoder, models, law, (0,), 4)
    monkeypatch.undo()
    assert distance(got, truth) > 1e-3


def test_the_acceptance_numbers_of_nodes_differ_and_are_not_the_drafts():
    """Independent numbers: those of two nodes, and those of draft and test, never coincide."""
    scored = drawn_tree(WOR, 0)
    seen = []

    class Spy(PointTree):
        def judge(self, target, offers, uniforms):
            seen.extend(uniforms[offers.valid].tolist())
            return super().judge(target, offers, uniforms)

    TreeWalk(Spy(), batched=True).verify(replace(scored, streams=(scored.streams[0],) * 2))
    numbers = seen[: len(seen) // 2]
    assert len(set(numbers)) == len(numbers) == sum(len(o) for o in scored.tree.offers)
    drafted = scored.streams[0].numbers(scored.positions[0], 100, Purpose.DRAFT)
    assert not set(numbers) & set(drafted)
