"""Medusa, Hydra and Hydra++ at work: exact laws, the trees of their releases, mutations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from specbench.audit.heads import with_head
from specbench.clock import CpuClock
from specbench.decoding.calibrated import Calibrating
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import level
from specbench.decoding.drafters.level import HydraDrafter, MedusaDrafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.request import Request, StopTokens
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.dyspec import DySpec
from specbench.decoding.topologies.eagle2_dynamic import Eagle2Dynamic
from specbench.decoding.topologies.head_tree import HeadTree
from specbench.decoding.topologies.static_tree import TreeShape
from specbench.decoding.verifiers.point_tree import PointTree
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.decoding.verifiers.typical_accept import TypicalAccept
from specbench.errors import ConfigError
from specbench.hosting import load_method
from specbench.law import Law
from specbench.models.base import Taps, View
from specbench.models.heads.medusa import MedusaHead, MedusaHeads, MedusaSettings
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from specbench.rng import Streams
from tests.unit.decoding.parts import Autoregressive, cyclic_table, generate, table_pair
from tests.unit.decoding.topologies.composed import error
from tests.unit.models.heads.level_checkpoints import (
    hydra_config,
    hydra_state,
    loaded,
    medusa_config,
    medusa_state,
    written,
)
from tests.unit.models.tiny_checkpoints import pairs

FAMILIES = ("medusa", "hydra", "hydra_pp")
PATHS = [[0], [1], [0, 0], [0, 1], [1, 0]]
TOLERANCE = 1e-12


def decoder(family, paths=PATHS, verifier=None, topology=None):
    drafter = MedusaDrafter() if family == "medusa" else HydraDrafter()
    verifier = verifier or TreeWalk(PointTree())
    return DraftVerify(drafter, topology or HeadTree(paths), Constant(9), verifier)


def toys(family, **options):
    return with_head(table_pair(**options), (family,))


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.7, top_k=2, repetition_penalty=1.5)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_law_is_the_targets(family, law):
    assert error(decoder(family), toys(family, order=1), law, 4) < TOLERANCE


def test_the_law_is_the_targets_where_a_draw_must_match():
    made = decoder("medusa", [[0], [0, 0]], SampleMatch())
    assert error(made, toys("medusa", order=1), Law(), 4) < TOLERANCE


@pytest.mark.parametrize("topology", [Chain(), Eagle2Dynamic(2, 4, 2)], ids=["chain", "dynamic"])
def test_the_law_is_the_targets_in_other_shapes(topology):
    made = decoder("hydra", topology=topology)
    assert error(made, toys("hydra", order=1), Law(), 4) < TOLERANCE


@pytest.mark.parametrize("family", ["medusa", "hydra_pp"])
def test_a_bonus_from_the_wrong_law_is_caught(family, monkeypatch):
    """What follows an accepted path comes from the law after it, and not from an earlier one."""
    from specbench.decoding.verifiers import tree_walk

    original = tree_walk.TreeWalk.verify

    def stale(self, scored):
        moved = scored.logits.clone()
        moved[:, 1:] = scored.logits[:, :1]
        return original(self, replace(scored, logits=moved))

    monkeypatch.setattr(tree_walk.TreeWalk, "verify", stale)
    assert error(decoder(family), toys(family, order=1), Law(), 4) > 1e-3


# What is drafted is what the heads say of the text, from states that were computed anew.

PROMPTS = ((5, 3, 2), (3, 3, 1, 0), (4, 0, 5, 2, 1))
GREEDY = Law(temperature=0.0)


def expected_tokens(models, committed, shape, size):
    """Return the tree below a text, from one forward over all of it (`LevelHead.along`)."""
    head, target = models.head, models.target
    ids, taps = torch.tensor([committed]), Taps(head.taps, every=True)
    target.forward(ids[:, :-1], target.new_cache(1, len(committed)), View(taps=taps))
    true = taps.states[0]
    tokens = []
    for node in range(size):
        path, above = [], shape.parents[node]
        while above >= 0:
            path.insert(0, tokens[above])
            above = shape.parents[above]
        # Two tokens more, so that the level's logits at the last true state are among those given.
        text = torch.tensor([[*committed, *path, 0]])
        behind = true.new_zeros(1, text.shape[1] - true.shape[1], true.shape[2])
        logits = head.along(torch.cat([true, behind], 1), text)[shape.depths[node] - 1]
        row = logits[true.shape[1] - 1]
        tokens.append(int(row.topk(shape.ranks[node] + 1).indices[-1]))
    return tokens


def differing(family, count=20):
    """Decode, and return how many of the proposed trees are not those that are expected."""
    models = toys(family, vocab=6)
    paths = [[0], [1], [0, 0], [0, 1], [1, 0]]
    shape, wrong, accepted = TreeShape.from_paths(paths), 0, 0
    for prompt in PROMPTS:
        made, proposed = decoder(family, paths), []
        made.probe = lambda scored, verdict, seen=proposed: seen.append((scored, verdict))
        tokens = generate(made, models, GREEDY, prompt, count).tokens
        assert tokens == generate(Autoregressive(), models, GREEDY, prompt, count).tokens
        committed = [*prompt, tokens[0]]
        for scored, verdict in proposed:
            size = scored.tree.size
            want = expected_tokens(models, committed, shape, size)
            wrong += scored.tree.tokens[0].tolist() != want
            accepted += len(verdict.path)
            committed += verdict.tokens
    assert accepted > 3
    return wrong


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_are_those_of_the_heads_and_tokens_those_of_plain_decoding(family):
    assert differing(family) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_published_files_behind_a_lean_target_keep_plain_greedy_tokens(family, tmp_path):
    plus = family == "hydra_pp"
    state, config = hydra_state(layers=3, plus=plus), hydra_config(3, plus)
    if family == "medusa":
        state, config = medusa_state(), medusa_config()
    target = pairs(tmp_path / "target")("llama", "lean").target
    head = loaded(written(tmp_path / "head", config, state, "heads.pt"), target)
    models = ModelPair("published", target, head=head)
    for prompt in ((5, 9, 2, 7), (40, 11, 90)):
        found = generate(decoder(family), models, GREEDY, prompt, 12).tokens
        assert found == generate(Autoregressive(), models, GREEDY, prompt, 12).tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stale_state_is_caught(family, monkeypatch):
    made = level._MedusaDrafting if family == "medusa" else level._HydraDrafting
    original, before = made.observe, []

    def a_round_late(self, session, outcome):
        before.append(outcome.kept)
        late = before[-2] if len(before) > 1 else outcome.kept
        original(self, session, outcome._replace(kept=late))

    monkeypatch.setattr(made, "observe", a_round_late)
    assert differing(family) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_state_of_the_root_in_place_of_the_last_accepted_is_caught(family, monkeypatch):
    made = level._MedusaDrafting if family == "medusa" else level._HydraDrafting
    original = made.observe

    def roots(self, session, outcome):
        kept = outcome.kept[0]
        original(self, session, outcome._replace(kept=(kept[:, :1].expand_as(kept),)))

    monkeypatch.setattr(made, "observe", roots)
    assert differing(family) > 0


def test_one_off_between_head_and_depth_is_caught(monkeypatch):
    original = HeadTree.filled
    monkeypatch.setattr(HeadTree, "filled", lambda self, logits: original(self, logits.flip(0)))
    assert differing("medusa") > 5


@pytest.mark.parametrize("family", ["hydra", "hydra_pp"])
@pytest.mark.parametrize("mutation", ["the sibling's token", "the token before the newest"])
def test_another_token_beside_the_state_is_caught(family, mutation, monkeypatch):
    feed, plant = level.Levels.feed, level.Levels.plant
    if mutation == "the sibling's token":
        monkeypatch.setattr(
            level.Levels, "feed", lambda self, tokens, *rest: feed(self, tokens.roll(1), *rest)
        )
    else:
        monkeypatch.setattr(level.Levels, "plant", lambda self, text: plant(self, text[:-1]))
    assert differing(family) > 5


def test_drafted_states_in_the_block_are_caught(monkeypatch):
    """Hydra++'s block must read the states of committed tokens, each once."""
    original = level.Levels.plant

    def reads_twice(self, committed):
        self._states = torch.cat([self._states[:, :1], self._states], 1)
        return original(self, committed)

    monkeypatch.setattr(level.Levels, "plant", reads_twice)
    assert differing("hydra_pp") > 0


# Perfect heads, fitted trees, other verifiers, refusals.


def perfect(period=5, levels=3):
    """Return a pair that counts, and heads that know it."""
    target = TableModel(cyclic_table(period, period), period)
    heads = MedusaHeads(MedusaSettings(levels, 1, period, period)).double()
    for number, head in enumerate(heads.children()):
        own = torch.zeros(period, period)
        for token in range(period):
            own[(token + 2 + number) % period, token] = 1.0
        head[1].weight.data.copy_(own)
    return ModelPair("count", target, head=MedusaHead(heads, target, "perfect", target.head))


def test_perfect_heads_emit_a_token_more_than_there_are_heads():
    made = decoder("medusa", [[0], [0, 0], [0, 0, 0]])
    found = generate(made, perfect(), Law(temperature=0.0), (0, 1), 13)
    assert [each.count.emitted for each in found.rounds] == [1, 4, 4, 4]
    works = [each.count.draft for each in found.rounds[1:]]
    assert [(work.forwards, work.tokens) for work in works] == [(1, 1)] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_forwards_of_the_heads_are_the_drafts(family):
    found = generate(decoder(family), toys(family), Law(temperature=0.0), (0, 1, 2), 12)
    first, second = (each.count.draft for each in found.rounds[:2])
    assert (first.forwards, first.tokens) == ((1, 2) if family == "hydra_pp" else (0, 0))
    # Hydra: the root's level and the two nodes with children; its block reads one state before.
    want = {"medusa": (1, 1), "hydra": (2, 3), "hydra_pp": (3, 4)}[family]
    assert (second.forwards, second.tokens) == want


def test_the_depth_is_that_of_the_heads():
    models = perfect(levels=2)
    made = decoder("medusa", [[0], [0, 0], [0, 0, 0]])
    found = generate(made, models, Law(temperature=0.0), (0, 1), 10)
    assert [each.count.emitted for each in found.rounds] == [1, 3, 3, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fitted_tree_knows_how_often_each_rank_is_right(family):
    """The shares of the first level are those of the trees that are drafted along the answers."""
    models = toys(family, vocab=6)
    tree = HeadTree(None, nodes=3, max_depth=2, width=3)
    values = tree.calibrate(fitting(decoder(family, topology=tree), models, PROMPTS))
    hits, count = [0, 0, 0], 0
    for prompt in PROMPTS:
        tokens = [*prompt, *generate(Autoregressive(), models, GREEDY, prompt, 12).tokens]
        for place in range(len(prompt) + 1, len(tokens)):
            shape = TreeShape.from_widths([3])
            guess = expected_tokens(models, tokens[:place], shape, 3)
            count += 1
            if tokens[place] in guess:
                hits[guess.index(tokens[place])] += 1
    assert values["positions"][0] == count == 33
    assert values["accuracies"][0] == pytest.approx([hit / count for hit in hits], abs=1e-5)
    tree.use({**values, "accuracies": [[0.6, 0.2, 0.0], [0.5, 0.0, 0.0]]})
    assert tree.shape == TreeShape.from_paths([[0], [1], [0, 0]])


def fitting(made, models, prompts):
    requests = tuple(
        Request(prompt, 12, GREEDY, Streams(0, "fit"), StopTokens(frozenset()))
        for prompt in prompts
    )
    return Calibrating(made, models, requests, CpuClock())


def test_perfect_heads_fit_a_chain():
    tree = HeadTree(None, nodes=3, max_depth=3, width=2)
    made = decoder("medusa", topology=tree)
    values = tree.calibrate(fitting(made, perfect(), [(0, 1)]))
    assert values["accuracies"] == [[1.0, 0.0]] * 3 and values["positions"] == [11, 10, 9]
    tree.use(values)
    assert tree.shape.parents == (-1, 0, 1)


def test_the_released_tree_is_the_default():
    for method in ("medusa", "medusa_typical", "hydra", "hydra_pp"):
        shape = TreeShape.from_paths(load_method(method)["paths"])
        depths = [shape.depths.count(depth) for depth in (1, 2, 3, 4)]
        assert shape.size == 63 and depths == [10, 28, 23, 2]


def test_typical_acceptance_takes_the_argmax_first_and_last():
    """At epsilon 1 and a large delta nothing but the target's argmax is ever emitted."""
    models = toys("medusa", vocab=5)
    strict = decoder("medusa", verifier=TypicalAccept(1.0, 1e9))
    for seed in range(3):
        sampled = generate(strict, models, Law(temperature=0.8), (0, 1, 2), 20, seed)
        greedy = generate(Autoregressive(), models, Law(temperature=0.0), (0, 1, 2), 20)
        assert sampled.tokens == greedy.tokens


@pytest.mark.parametrize(("family", "topology"), [("medusa", Chain()), ("hydra", DySpec(8, 4))])
def test_shapes_that_heads_cannot_fill_are_refused(family, topology):
    with pytest.raises(ConfigError) as refusal:
        generate(decoder(family, topology=topology), toys(family), Law(), (0, 1), 6)
    assert refusal.value.fix.startswith("Use the topology")
