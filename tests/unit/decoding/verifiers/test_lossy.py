"""Lossy verifiers: neutral values restore the exact parent, and the knob moves one way."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.decoding.tree import DraftTree, DrawKind, Draws
from specbench.decoding.verifiers.base import Scored
from specbench.decoding.verifiers.lenient_sd import LenientSD
from specbench.decoding.verifiers.relaxed_match import BigLittle, TopKAccept
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.decoding.verifiers.typical_accept import TypicalAccept
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.rng import Streams
from tests.unit.decoding.parts import Autoregressive, generate, random_trees, table_pair, token_sd
from tests.unit.decoding.verifiers.nodes import F5_P, F5_Q, WR, node_law

GREEDY = Law(temperature=0)
LAWS = [GREEDY, Law(), Law(temperature=0.7, top_p=0.9), Law(repetition_penalty=1.5)]


def ledger(generation):
    return generation.tokens, [r.count for r in generation.rounds]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(3))
def test_lenience_one_is_speculative_sampling_token_for_token(law, seed):
    models = table_pair(vocab=5, seed=seed)
    exact = generate(token_sd(3, TokenSD()), models, law, count=60, seed=seed)
    same = generate(token_sd(3, LenientSD(1.0)), models, law, count=60, seed=seed)
    assert ledger(exact) == ledger(same)
    loose = generate(token_sd(3, LenientSD(0.3)), models, law, count=60, seed=seed)
    assert loose.tokens != exact.tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("lenience", "path"), [(1.0, 0), (0.61, 0), (0.59, 1), (0.41, 1), (0.39, 2)]
)
def test_lenience_at_temperature_zero_compares_with_the_argmax(lenience, path, dtype):
    """0.3 against 0.5 is a share of 0.6, then 0.2 against 0.5 one of 0.4."""
    logits = torch.tensor([0.5, 0.3, 0.2], dtype=dtype).log().expand(1, 3, 3) + 4
    tree = DraftTree.chain(torch.tensor([[1, 2]]))
    scored = Scored(tree, logits, GREEDY, None, (Streams(0),), (1,))
    for verifier in (LenientSD(lenience), TreeWalk(RecursiveRejection(True, lenience))):
        assert verifier.verify(scored)[0].tokens == ((1, 2)[:path] + (0,))


@pytest.mark.parametrize(
    ("lenience", "acceptance", "strayed"),
    [(1.0, 0.65, 0.0), (0.8, 0.725, 0.075), (0.5, 0.8, 0.175)],
)
def test_lenience_on_the_fixture_of_five_tokens(lenience, acceptance, strayed):
    law, accepted = node_law(LenientSD(lenience), F5_P, F5_Q, WR, 1)
    assert accepted == pytest.approx(acceptance, abs=1e-9)
    assert float((law - F5_P).abs().sum() / 2) == pytest.approx(strayed, abs=1e-9)
    assert float((law / F5_P).max()) <= 1 / lenience + 1e-9
    if lenience == 0.5:
        assert float((law / F5_P).max()) == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_single_most_probable_token_is_greedy_matching(seed):
    models = table_pair(vocab=5, seed=seed)
    exact = generate(random_trees(seed), models, GREEDY, count=40)
    top = generate(random_trees(seed, TopKAccept(1)), models, GREEDY, count=40)
    assert ledger(exact) == ledger(top)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("verifier", [TopKAccept(0), BigLittle(0.0)], ids=["top_k", "rollback"])
def test_nothing_relaxed_is_matching_the_targets_draw(verifier, law):
    models = table_pair(vocab=5)
    exact = generate(random_trees(2), models, law, count=40)
    same = generate(random_trees(2, verifier), models, law, count=40)
    assert ledger(exact) == ledger(same)
    assert exact.tokens == generate(Autoregressive(), models, law, count=40).tokens


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "verifier", [TopKAccept(5), BigLittle(math.inf)], ids=["top_k", "rollback"]
)
def test_everything_relaxed_keeps_every_draft_token(verifier, law):
    generation = generate(token_sd(3, verifier), table_pair(vocab=5), law, count=41)
    assert [r.count.emitted for r in generation.rounds[1:]] == [4] * 10


def accepted(verifier, scored):
    return len(verifier.verify(scored)[0].path)


def random_scored(seed, law=None, vocab=8):
    """Return a random tree with random logits."""
    generator = torch.Generator().manual_seed(seed)
    parents = tuple(int(torch.randint(-1, n, (1,), generator=generator)) for n in range(10))
    tokens = torch.randint(0, vocab, (1, 10), generator=generator)
    logits = 2 * torch.randn(1, 11, vocab, generator=generator, dtype=torch.float64)
    return Scored(DraftTree(tokens, parents), logits, law or Law(), None, (Streams(seed),), (4,))


@pytest.mark.parametrize("law", [GREEDY, Law()])
def test_a_looser_knob_never_shortens_the_path(law):
    for seed in range(20):
        scored = random_scored(seed, law)
        lengths = [accepted(TopKAccept(k), scored) for k in range(9)]
        assert lengths == sorted(lengths)
        lengths = [accepted(BigLittle(r), scored) for r in (0, 0.5, 1, 2, 4, math.inf)]
        assert lengths == sorted(lengths)
    scored = [random_scored(seed) for seed in range(20)]
    assert sum(accepted(TopKAccept(1), s) for s in scored) < sum(
        accepted(TopKAccept(4), s) for s in scored
    )


def test_top_k_breaks_ties_towards_the_lowest_index():
    logits = torch.zeros(1, 2, 4, dtype=torch.float64)
    for token in range(4):
        tree = DraftTree.chain(torch.tensor([[token]]))
        scored = Scored(tree, logits, GREEDY, None, (Streams(0),), (1,))
        assert accepted(TopKAccept(2), scored) == (token < 2)


def test_rollback_scans_past_a_violation_that_the_target_repeats():
    """The first improbable token equals the target's draw; the second one must still be cut."""
    logits = torch.zeros(1, 3, 3, dtype=torch.float64)
    logits[0, 1, 0] = 50.0
    tree = DraftTree.chain(torch.tensor([[0, 2]]))
    scored = Scored(tree, logits, GREEDY, None, (Streams(0),), (1,))
    verdict = BigLittle(0.5).verify(scored)[0]
    assert verdict.tokens == (0, 0) and verdict.path == (0,)


def test_rollback_replaces_the_first_violation_and_cuts_the_rest():
    logits = torch.zeros(1, 4, 3, dtype=torch.float64)
    logits[0, 1, 1] = 50.0
    tree = DraftTree.chain(torch.tensor([[2, 0, 2]]))
    scored = Scored(tree, logits, GREEDY, None, (Streams(0),), (1,))
    verdict = BigLittle(5.0).verify(scored)[0]
    assert verdict.tokens == (2, 1)


def test_typical_at_one_emits_only_the_argmax():
    models = table_pair(vocab=5)
    got = generate(token_sd(3, TypicalAccept(1.0, 1e9)), models, Law(), count=30)
    assert [r.count.accepted for r in got.rounds[1:]] == [0] * 29
    follow = generate(Autoregressive(), models, GREEDY, (0, 1, got.tokens[0]), count=29)
    assert got.tokens[1:] == follow.tokens


@pytest.mark.parametrize("seed", range(4))
def test_typical_begins_with_the_argmax_whatever_the_law(seed):
    models = table_pair(vocab=5, seed=seed, sharpness=0.2)
    law = Law(repetition_penalty=1.5)
    greedy = generate(Autoregressive(), models, Law(temperature=0, repetition_penalty=1.5), count=1)
    for number in range(5):
        decoder = token_sd(3, TypicalAccept(0.5, 0.5))
        assert generate(decoder, models, law, count=1, seed=number).tokens == greedy.tokens


def test_typical_at_temperature_zero_is_greedy_matching():
    models = table_pair(vocab=5)
    exact = generate(random_trees(3), models, GREEDY, count=40)
    assert ledger(exact) == ledger(
        generate(random_trees(3, TypicalAccept(0.09, 0.3)), models, GREEDY, count=40)
    )


def test_a_lower_threshold_never_shortens_a_typical_path():
    total = []
    for seed in range(20):
        scored = random_scored(seed)
        lengths = [accepted(TypicalAccept(e, 0.3), scored) for e in (1.0, 0.3, 0.09, 0.01, 1e-6)]
        assert lengths == sorted(lengths)
        deltas = [accepted(TypicalAccept(0.5, d), scored) for d in (10.0, 1.0, 0.3, 0.01)]
        assert deltas == sorted(deltas)
        total.append(lengths)
    assert max(row[-1] for row in total) > 1 and any(row[0] < row[2] < row[-1] for row in total)


def test_typical_follows_every_passing_child_and_keeps_the_longest():
    """The first passing child is a dead end; of the two long paths the likelier is kept."""
    tokens, parents = [0, 1, 2, 0, 0], (-1, -1, -1, 1, 2)
    logits = torch.zeros(1, 6, 4, dtype=torch.float64)
    logits[0, 0] = torch.tensor([0.4, 0.25, 0.35, 1e-9]).double().log()
    scored = Scored(
        DraftTree(torch.tensor([tokens]), parents), logits, Law(), None, (Streams(0),), (1,)
    )
    verdict = TypicalAccept(0.09, 0.3).verify(scored)[0]
    assert verdict.path == (2, 4) and verdict.tokens == (2, 0, 0)


def test_typical_uses_the_threshold_of_its_own_entropy():
    """A uniform law of four has exp(-H) = 1/4: delta of 1.1 refuses what 0.9 accepts."""
    tree = DraftTree.chain(torch.tensor([[3]]))
    scored = Scored(tree, torch.zeros(1, 2, 4), Law(), None, (Streams(0),), (1,))
    assert accepted(TypicalAccept(1.0, 0.9), scored) == 1
    assert accepted(TypicalAccept(1.0, 1.1), scored) == 0
    assert accepted(TypicalAccept(0.24, 1.1), scored) == 1


@pytest.mark.parametrize("verifier", [SampleMatch, lambda: TopKAccept(2), lambda: BigLittle(2.0)])
def test_rows_are_judged_apart(verifier):
    one, two = random_scored(1), random_scored(2)
    tree = DraftTree(torch.cat([one.tree.tokens, two.tree.tokens]), one.tree.parents)
    both = Scored(
        tree, torch.cat([one.logits, two.logits]), Law(), None, (Streams(1), Streams(2)), (4, 4)
    )
    alone = Scored(
        DraftTree(two.tree.tokens, one.tree.parents), two.logits, Law(), None, (Streams(2),), (4,)
    )
    verdicts = verifier().verify(both)
    assert verdicts == verifier().verify(one) + verifier().verify(alone)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LenientSD(0.0),
        lambda: LenientSD(1.01),
        lambda: TopKAccept(-1),
        lambda: BigLittle(-0.1),
        lambda: BigLittle(math.nan),
        lambda: TypicalAccept(0.0, 0.3),
        lambda: TypicalAccept(1.5, 0.3),
        lambda: TypicalAccept(0.5, 0.0),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ConfigError) as refused:
        make()
    assert "Choose" in refused.value.fix


def test_a_lenient_chain_still_reads_its_own_record():
    """Lenience scales the law that the record states, not the target's."""
    draws = Draws(DrawKind.WITH_REPLACEMENT, (-1,), F5_Q[None, None])
    tree = DraftTree.chain(torch.tensor([[0]]), draws)
    scored = Scored(tree, F5_P.log().expand(1, 2, -1), Law(), None, (Streams(0),), (1,))
    target = scored.law.probabilities(scored.logits)
    assert torch.allclose(LenientSD(0.5).draft_law(scored, target), 0.5 * F5_Q)
