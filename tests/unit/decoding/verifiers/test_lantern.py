"""LANTERN: neutral at zero, relaxed by the mass of codebook neighbours, and how far it strays."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from specbench.decoding.codebook import Neighbours
from specbench.decoding.tree import DraftTree, DrawKind, Draws
from specbench.decoding.verifiers.base import Scored
from specbench.decoding.verifiers.lantern import Lantern, RelaxedRule
from specbench.decoding.verifiers.point_tree import PointTree
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.rules import Offers
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.law import Guidance, Law
from specbench.models.pair import ModelPair
from specbench.rng import Streams
from tests.unit.decoding.parts import generate, pld, table_pair, token_sd
from tests.unit.decoding.pictures import Side, toy_grid, toy_picture
from tests.unit.decoding.verifiers.nodes import F5_P, F5_Q, POINT, WOR, WR, draws_of, node_law
from tests.unit.decoding.verifiers.trees import Widths, drawn_tree, tree_decoder

LINE = torch.tensor([[0.0], [1.0], [3.0], [3.5], [7.0]])
"""Five codes; the nearest of each: 1, 0, 3, 2, 3."""
LAW = Law(guidance=Guidance(2.0))


def line_models(codebook=LINE, first_code=0):
    side = Side(toy_grid(1, 1, len(codebook)), codebook, first_code)
    return ModelPair("line", table_pair().target, image=side)


def prepared(verifier, codebook=LINE, first_code=0):
    verifier.prepare(line_models(codebook, first_code))
    return verifier


def neutral(neighbours):
    """Return the settings that restore the exact rule."""
    yield Lantern(neighbours, delta=0.0)
    yield Lantern(neighbours, factor=1.0)
    yield Lantern(0, delta=1.0)
    yield Lantern(0, factor=9.0)


def exact_for(kind):
    return TreeWalk(PointTree() if kind in (POINT, DrawKind.NONE) else RecursiveRejection(False))


@pytest.mark.parametrize("kind", [POINT, WOR])
@pytest.mark.parametrize("batched", [False, True])
def test_neutral_values_restore_the_exact_verifier_on_random_trees(kind, batched):
    codebook = torch.randn(28, 3, generator=torch.Generator().manual_seed(1))
    for seed in range(6):
        scored = drawn_tree(kind, seed)
        want = exact_for(kind).verify(scored)
        for verifier in neutral(6):
            verifier._batched = batched
            assert prepared(verifier, codebook, 1).verify(scored) == want


@pytest.mark.parametrize("kind", [POINT, WOR])
def test_neutral_values_restore_the_exact_decoder_on_pictures(kind):
    for seed, temperature in itertools.product(range(2), (0.0, 1.0)):
        law = Law(temperature, top_k=4, guidance=Guidance(2.0))
        models = toy_picture(3, 3, 6, seed=seed)
        models = models.under(law)
        count = models.image.grid.length
        topology = Widths(3, 2, kind=kind)
        want = generate(tree_decoder(topology, exact_for(kind)), models, law, (1, 0), count, seed)
        for verifier in neutral(3):
            decoder = tree_decoder(topology, verifier)
            decoder.prepare(models)
            got = generate(decoder, models, law, (1, 0), count, seed)
            assert got.tokens == want.tokens
            assert [r.count for r in got.rounds] == [r.count for r in want.rounds]


def written(p, q, tokens, kind, neighbours, delta=None, factor=None):
    """Return the law of the emitted token at one node, and the acceptance, written down."""
    out, accepted, chance_here = torch.zeros_like(p), 0.0, 1.0
    running, draft = p.clone(), None if q is None else q.clone()
    for token in tokens:
        near = sorted((c for c in range(len(p)) if c != token), key=lambda c: distance(token, c))
        near = near[:neighbours]
        added = 0.0
        for end in range(1, len(near) + 1):
            mass = float(running[near[:end]].sum())
            bound = delta if delta is not None else (factor - 1) * float(running[token])
            if mass <= bound + 1e-9:
                added = mass
        raised = float(running[token]) + added
        accept = min(1.0, raised / (1.0 if draft is None else float(draft[token])))
        out[token] += chance_here * accept
        accepted += chance_here * accept
        chance_here *= 1 - accept
        if draft is None:
            reduced = running.clone()
            reduced[token] = 0.0
            if added > 0:
                alone = reduced.clone()
                alone[near] = 0.0
                reduced = alone if alone.sum() > 0 else reduced
        else:
            subtracted = draft.clone()
            if added > 0:
                subtracted[near] = 0.0
            reduced = (running - subtracted).clamp(min=0)
            draft[token] = 0.0
            draft = draft / draft.sum()
        running = reduced / reduced.sum() if reduced.sum() > 0 else running
    return out + chance_here * running, accepted


def distance(left, right):
    return float((LINE[left] - LINE[right]).abs()), right


def strayed(law):
    return float((law - F5_P).abs().sum() / 2)


@pytest.mark.parametrize("kind", [POINT, WOR])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("neighbours", "delta", "factor"),
    [(1, 0.25, None), (2, 0.3, None), (4, 0.5, None), (4, 1.0, None), (2, None, 2.5), (1, None, 5)],
)
def test_the_law_of_a_node_is_the_one_written_down(kind, count, neighbours, delta, factor):
    verifier = prepared(Lantern(neighbours, delta, factor))
    law, accepted = node_law(verifier, F5_P, F5_Q, kind, count)
    want, chance = torch.zeros_like(F5_P), 0.0
    for tokens, weight, stated in draws_of(kind, F5_Q, count):
        out, share = written(F5_P, stated, tokens, kind, neighbours, delta, factor)
        want, chance = want + weight * out, chance + weight * share
    torch.testing.assert_close(law, want, atol=1e-12, rtol=0)
    assert accepted == pytest.approx(chance, abs=1e-12)
    exact, share = node_law(exact_for(kind), F5_P, F5_Q, kind, count)
    assert strayed(exact) < 1e-12
    assert accepted >= share - 1e-12 or count > 1  # a rejected code takes near siblings with it


def test_measured_distance_to_the_targets_law():
    """What the knob does to the output on the fixture of five codes; delta is not the distance."""
    table = {
        (kind, delta): strayed(node_law(prepared(Lantern(4, delta)), F5_P, F5_Q, kind, 1)[0])
        for kind, delta in itertools.product((POINT, WOR), (0.0, 0.1, 0.3, 1.0))
    }
    for kind in (POINT, WOR):
        values = [table[kind, delta] for delta in (0.0, 0.1, 0.3, 1.0)]
        assert values[0] < 1e-12 and values == sorted(values) and values[-1] > 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_delta_does_not_bound_the_output(dtype):
    """A hundred draft codes of q = .01 around ten codes of p = .1: all accepted, distance 1."""
    rows = [[10.0 * cluster] for cluster in range(10)]
    rows += [[10.0 * (i % 10) + 0.01 * (1 + i // 10)] for i in range(100)]
    rule = RelaxedRule(10, delta=0.1)
    rule.prepare(line_models(torch.tensor(rows)))
    target, draft = torch.zeros(1, 110, dtype=dtype), torch.zeros(1, 110, dtype=dtype)
    target[0, :10], draft[0, 10:] = 0.1, 0.01
    for token in range(10, 110):
        tokens, valid = torch.tensor([[token]]), torch.tensor([[True]])
        offers = Offers(tokens, valid, torch.zeros_like(tokens), draft, False)
        almost_one = torch.full((1, 1), 1 - 1e-12, dtype=torch.float64)
        assert rule.judge(target, offers, almost_one).accepted.tolist() == [0]


def chain_scored(tokens, logits, kind=WR, law=None, draft=None):
    count = len(tokens)
    draws = Draws(kind, tuple(range(-1, count - 1)), draft)
    tree = DraftTree.chain(torch.tensor([tokens]), draws if draft is not None else None)
    return Scored(tree, logits, law or Law(), None, (Streams(3),), (4,))


def test_a_larger_bound_never_shortens_a_chain():
    codebook = torch.randn(8, 2, generator=torch.Generator().manual_seed(2))
    longer = 0
    for seed in range(15):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, 8, (6,), generator=generator).tolist()
        logits = 2 * torch.randn(1, 7, 8, generator=generator, dtype=torch.float64)
        draft = torch.randn(1, 6, 8, generator=generator, dtype=torch.float64).softmax(-1)
        for temperature, law_of_draft in itertools.product((0.0, 1.0), (None, draft)):
            scored = chain_scored(tokens, logits, law=Law(temperature), draft=law_of_draft)
            settings = [(delta, None) for delta in (0, 0.1, 0.3, 0.6, 1.0)]
            settings += [(None, factor) for factor in (1, 1.5, 3, 10, 1e6)]
            lengths = [
                len(prepared(Lantern(7, *bound), codebook).verify(scored)[0].path)
                for bound in settings
            ]
            assert lengths[:5] == sorted(lengths[:5]) and lengths[5:] == sorted(lengths[5:])
            longer += lengths[4] > lengths[0]
    assert longer > 10


@pytest.mark.parametrize("kind", [POINT, WOR])
def test_a_larger_bound_takes_fewer_rounds_on_pictures(kind):
    models = toy_picture(4, 4, 8)
    models = models.under(LAW)
    rounds = []
    for delta in (0.0, 0.2, 1.0):
        decoder = tree_decoder(Widths(2, 2, kind=kind), Lantern(7, delta))
        decoder.prepare(models)
        runs = [generate(decoder, models, LAW, (1, 0), 21, seed) for seed in range(3)]
        rounds.append(sum(len(run.rounds) for run in runs))
    assert rounds[0] > rounds[1] > rounds[2]


def test_any_drafter_serves():
    models = toy_picture(4, 4, 4)
    models = models.under(LAW)
    for decoder in (pld(3, Lantern(3, 0.5), ngram_max=1), token_sd(3, Lantern(3, factor=5.0))):
        decoder.prepare(models)
        assert decoder.needs >= {"image"}
        generation = generate(decoder, models, LAW, (1, 0), 21)
        assert sum(round_.count.emitted for round_ in generation.rounds) == 21
        assert any(round_.count.accepted for round_ in generation.rounds)


def test_only_codes_are_relaxed():
    """A row end whose id lies outside the codebook is tested as it is."""
    rule = prepared(Lantern(4, 1.0), first_code=2)._relaxed
    running = torch.full((3, 8), 0.125, dtype=torch.float64)
    tokens = torch.tensor([[1], [4], [7]])
    left = torch.ones(3, 1, dtype=torch.float64)
    added = rule.raised(running, running.gather(1, tokens), tokens, left).added
    assert added.flatten().tolist() == [0.0, 0.5, 0.0]


def greedy_scored(logits, tokens, parents):
    tree = DraftTree(torch.tensor([tokens]), parents)
    return Scored(tree, logits.log()[None], Law(0.0), None, (Streams(0),), (4,))


def test_at_temperature_zero_a_raised_code_may_overtake_the_argmax():
    law = torch.tensor([0.05, 0.3, 0.05, 0.2, 0.4], dtype=torch.float64)
    logits = law.expand(3, 5)
    scored = greedy_scored(logits, [0, 3], (-1, -1))
    assert prepared(Lantern(1, delta=0.2)).verify(scored)[0].tokens == (4,)
    assert prepared(Lantern(1, delta=0.3)).verify(scored)[0].tokens == (4,)
    # Code 3 with its nearest 2, 1 and 0 has .6; code 0 with 1 and 2 has .4, no more than code 4.
    assert prepared(Lantern(4, delta=0.5)).verify(scored)[0].tokens == (3, 4)
    # With 3 as well code 0 passes too, and is the first of two paths of one length.
    assert prepared(Lantern(4, delta=0.6)).verify(scored)[0].tokens == (0, 4)
    deeper = greedy_scored(law.expand(4, 5), [0, 3, 3], (-1, -1, 1))
    assert prepared(Lantern(4, delta=0.6)).verify(deeper)[0].tokens == (3, 3, 4)


# Mutations: each must be noticed by the law written down.


def keep_neighbours(monkeypatch):
    """Forget to remove the neighbours after a rejection."""
    original = RelaxedRule.raised

    def raised(self, *args):
        result = original(self, *args)
        return result._replace(near=result.near[:, :0])

    monkeypatch.setattr(RelaxedRule, "raised", raised)


def count_itself(monkeypatch):
    """Let a code be its own neighbour."""
    original = Neighbours.of

    def of(self, tokens):
        near, inside = original(self, tokens)
        return torch.cat([tokens[:, None], near[:, :-1]], 1), inside

    monkeypatch.setattr(Neighbours, "of", of)


def always_relax(monkeypatch):
    """Ignore the bound."""
    monkeypatch.setattr("specbench.decoding.verifiers.lantern._ROUNDING", 1e9)


@pytest.mark.parametrize("mutate", [keep_neighbours, count_itself, always_relax])
@pytest.mark.parametrize("kind", [POINT, WOR])
def test_a_mutation_is_noticed(monkeypatch, mutate, kind):
    mutate(monkeypatch)
    law, _ = node_law(prepared(Lantern(2, 0.3)), F5_P, F5_Q, kind, 2)
    want = torch.zeros_like(F5_P)
    for tokens, weight, stated in draws_of(kind, F5_Q, 2):
        want = want + weight * written(F5_P, stated, tokens, kind, 2, 0.3)[0]
    assert float((law - want).abs().max()) > 1e-3


def test_a_law_that_would_be_emptied_keeps_the_neighbours():
    """Everything is near and the code is rejected: no draw from nothing, none of what is out."""
    target = torch.tensor([[0.1, 0.2, 0.0, 0.3, 0.4]], dtype=torch.float64)
    rule = prepared(Lantern(4, 0.3))._relaxed
    tokens, valid = torch.tensor([[0]]), torch.tensor([[True]])
    offers = Offers(tokens, valid, torch.zeros_like(tokens), None, False)
    judged = rule.judge(target, offers, torch.full((1, 1), 0.999, dtype=torch.float64))
    assert judged.accepted.tolist() == [-1]
    torch.testing.assert_close(
        judged.leftover[0] > 0, torch.tensor([False, True, False, True, True])
    )


def test_bad_values_and_models_of_text_are_refused():
    for values in [
        dict(neighbours=-1, delta=0.1),
        dict(neighbours=2.5, delta=0.1),
        dict(neighbours=3),
        dict(neighbours=3, delta=0.1, factor=2.0),
        dict(neighbours=3, delta=1.1),
        dict(neighbours=3, factor=0.5),
    ]:
        with pytest.raises(ConfigError):
            Lantern(**values)
    with pytest.raises(ConfigError, match="needs an image model"):
        Lantern(3, 0.1).prepare(table_pair())


class Spaces(Side):
    """Codes whose decoder normalises them: the nearest stored row is not the nearest direction."""

    def vectors(self, space):
        assert space in ("rows", "codebook")
        return self.codebook if space == "rows" else F.normalize(self.codebook, dim=-1)


def test_codes_are_near_by_their_stored_rows_as_in_the_release():
    rows = torch.tensor([[1.0, 0.0], [9.0, 0.0], [1.0, 1.0], [5.0, 5.1]])
    models = ModelPair("line", table_pair().target, image=Spaces(toy_grid(1, 1, 4), rows, 0))
    nearest = {}
    for distance in ("rows", "codebook"):
        rule = RelaxedRule(1, delta=0.5, distance=distance)
        rule.prepare(models)
        nearest[distance] = rule._neighbours.nearest[:, 0].tolist()
    assert nearest == {"rows": [2, 3, 0, 2], "codebook": [1, 0, 3, 2]}
    released = RelaxedRule(1, delta=0.5)
    released.prepare(models)
    assert released._neighbours.nearest[:, 0].tolist() == nearest["rows"]
    with pytest.raises(ConfigError, match="distance=row "):
        Lantern(1, delta=0.5, distance="row")
