"""Nothing is drafted, counted or accepted behind a stop token, and the law stays the target's."""

from __future__ import annotations

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.ceiling import CeilingProbe
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.input_guided import InputGuided
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.lengths import oracle_cost
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.lengths.svip import Svip
from specbench.decoding.request import Request, StopStrings, StopTokens
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.eagle2_dynamic import Eagle2Dynamic
from specbench.decoding.topologies.k_chains import KChains
from specbench.decoding.topologies.specexec import SpecExec
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.block_verify import BlockVerify
from specbench.decoding.verifiers.kseq import KSequential
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.hosting import load_method
from specbench.law import Law
from specbench.rng import Streams
from specbench.schema.build import instantiate
from tests.contract.test_transfers import EXEMPT
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, pld, table_pair, token_sd
from tests.unit.decoding.transfers import CountingClock, on_device, watch

PROMPT = (0, 2, 0)
STOPS = frozenset({1})
LAWS = {"greedy": Law(0.0), "sampled": Law(0.9)}
COMPOSITIONS = {
    "chain": lambda: token_sd(3),
    "block": lambda: token_sd(3, BlockVerify()),
    "svip": lambda: composed(Chain(), TokenSD(), Svip(0.36, max_length=3)),
    "dropping": lambda: composed(Chain(), TokenSD(), ConfidenceStop(0.4, 3, keep_last=False)),
    "k_chains": lambda: composed(KChains(2, 2), TreeWalk(KSequential())),
    "static": lambda: composed(StaticTree(widths=[2, 1]), TreeWalk(RecursiveRejection(False))),
    "eagle2": lambda: composed(Eagle2Dynamic(2, 4, 3), SampleMatch()),
    "specexec": lambda: composed(SpecExec(4, 2, 2), SampleMatch()),
    "copies": lambda: pld(3),
}


def composed(topology, verifier, length=None):
    return DraftVerify(ModelDrafter(), topology, length or Constant(3), verifier)


def request(law, count=24, seed=0, stop=STOPS):
    return Request(PROMPT, count, law, Streams(seed, "stop"), StopTokens(stop))


def rounds_of(decoder, law):
    """Return every round of some requests, and the tree that it judged."""
    found = []
    for seed in range(12):
        trees, models = [], table_pair(vocab=5, seed=2 * seed)
        decoder.probe = lambda scored, verdict, trees=trees: trees.append(scored.tree)
        generation = decoder.generate(models, request(law, seed=seed), CpuClock())
        found += zip(generation.rounds[1:], trees, strict=True)
    return found


@pytest.mark.parametrize("compose", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_the_law_with_a_stop_token_is_the_targets(compose):
    models = table_pair()
    got = output_law(compose(), models, Law(), PROMPT, 3, stop=STOPS)
    assert distance(got, true_law(models, Law(), PROMPT, 3, stop=STOPS)) < 1e-12


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_no_node_stands_below_a_stop_token(name, law):
    stopped = 0
    fixed = law.greedy and name in ("static", "k_chains")  # the host never sees its tokens
    for round_, tree in rounds_of(COMPOSITIONS[name](), law):
        tokens = tree.tokens[0].tolist()
        below = any(parent >= 0 and tokens[parent] in STOPS for parent in tree.parents)
        assert fixed or not below
        assert round_.count.proposed in (tree.reach(tokens, STOPS), round_.count.emitted)
        stopped += bool(STOPS & set(tokens))
    assert (stopped > 2) == (name != "copies")


def test_a_chain_saves_the_draft_forwards_behind_a_stop_token():
    sizes = set()
    for round_, tree in rounds_of(token_sd(6), Law()):
        assert round_.count.draft.forwards == tree.size == round_.count.proposed
        sizes.add(tree.size)
    assert sizes >= {1, 3, 6}


def test_what_stands_behind_an_accepted_stop_token_is_in_no_count():
    """Both models are one, so every tested token is accepted, and so is the stop token."""
    for decoder in (token_sd(6), composed(StaticTree(widths=[1] * 6), TokenSD(), Constant(6))):
        for law in LAWS.values():
            for seed in range(8):
                models = table_pair(vocab=5, seed=2 * seed)
                models.draft = models.target
                rounds = decoder.generate(models, request(law, 40, seed), CpuClock()).rounds[1:]
                for count in (entry.count for entry in rounds):
                    assert count.accepted == count.proposed
                    assert count.emitted in (count.accepted, count.accepted + 1)


def test_a_stop_string_cuts_the_counts_as_well():
    models = table_pair(vocab=5)
    models.draft = models.target
    rule = StopStrings(frozenset(), ("1",), lambda tokens: "".join(map(str, tokens)))
    asked = Request(PROMPT, 40, Law(0.8), Streams(3, "stop"), rule)
    last = token_sd(6).generate(models, asked, CpuClock()).rounds[-1].count
    assert last.accepted == last.proposed == last.emitted < 6


def test_reach_ends_paths_at_stop_tokens():
    tree = DraftTree(torch.zeros(1, 6, dtype=torch.int64), (-1, 0, 1, -1, 3, 2))
    assert tree.depth == tree.reach([9, 9, 9, 9, 9, 9], STOPS) == 4
    assert tree.reach([9, 9, 1, 9, 9, 9], STOPS) == 3
    assert tree.reach([1, 9, 9, 9, 9, 9], STOPS) == 2
    assert tree.reach([1, 9, 9, 1, 9, 9], STOPS) == 1


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_copies_end_before_a_stop_token_and_cost_no_round(law):
    models = table_pair(vocab=5)
    prompt = (0, 2, 3, 1, 4, 0, 2)
    drafted = []
    for stop in (STOPS, frozenset()):
        for decoder in (pld(4), DraftVerify(InputGuided(), Chain(), Constant(4), SampleMatch())):
            decoder.probe = lambda scored, verdict: drafted.append(scored.tree.tokens[0].tolist())
            tokens = generate(decoder, models, law, prompt, 12, stop=stop).tokens
            assert tokens == generate(Autoregressive(), models, law, prompt, 12, stop=stop).tokens
            has_stop = any(1 in draft for draft in drafted)
            assert not (stop and has_stop)
            drafted.clear()


def copy_of(text, most):
    """Return what followed the first earlier occurrence of the text's end, up to a stop token."""
    for size in (3, 2, 1):
        for end in range(size, len(text)):
            if text[end - size : end] == text[-size:]:
                copied = text[end : end + most]
                return copied[: copied.index(1)] if 1 in copied else copied
    return []


def test_the_copy_is_what_stands_before_the_stop_token():
    trees, lengths = [], set()
    decoder = pld(4)
    decoder.probe = lambda scored, verdict: trees.append((scored.positions[0], scored.tree))
    prompt = [0, 2, 1, 4, 1, 2, 2, 1, 3, 2, 1, 1, 2, 1]
    for seed in range(5):
        trees.clear()
        models = table_pair(vocab=5, seed=2 * seed)
        text = [*prompt, *generate(decoder, models, Law(), prompt, 40, seed, STOPS).tokens]
        for position, tree in trees:
            most = min(4, len(prompt) + 40 - position - 1)
            drafted = tree.tokens[0].tolist()
            assert drafted == (copy_of(text[:position], most) if most else [])
            lengths.add(len(drafted))
    assert lengths >= {0, 1, 4}


def test_the_ceiling_looks_at_no_node_behind_a_stop_token():
    decoder = composed(StaticTree(widths=[1] * 6), SampleMatch(), Constant(6))
    probe = CeilingProbe()
    decoder.probe = probe
    accepted = 0
    for seed in range(8):
        models = table_pair(vocab=5, seed=2 * seed)
        models.draft = models.target
        rounds = decoder.generate(models, request(Law(0.0), 40, seed), CpuClock()).rounds[1:]
        accepted += sum(entry.count.accepted for entry in rounds)
    assert probe.accepted == accepted


METHODS = ["token_sd", "block_sd", "hf_assisted", "svip", "conf_sd", "bild", "pld", "iad"]
TREES = ["static_tree", "mcsd", "spectr", "rsd_c", "dynamic_tree", "specexec", "sequoia", "dyspec"]


@pytest.mark.parametrize("method", METHODS + TREES)
def test_a_device_gives_the_tokens_and_the_counts_of_a_cpu(method, monkeypatch):
    monkeypatch.setattr(oracle_cost, "measured_cost_ratio", lambda *models: 0.2)
    stopped = 0
    for law in LAWS.values():
        for seed in range(4):
            decoders = [instantiate(load_method(method)["decoder"]) for _ in range(2)]
            models = table_pair(vocab=9, sharpness=1.5)
            asked = request(law, 24, seed, frozenset({1, 4}))
            expected = decoders[0].generate(models, asked, CpuClock())
            with watch() as watched:
                clock = CountingClock(watched)
                got = decoders[1].generate(on_device(models), asked, clock)
            assert got.tokens == expected.tokens
            exempt = EXEMPT.get(method)
            for entry, traffic in list(zip(got.rounds, clock.traffic, strict=True))[1:]:
                looks = exempt.most(entry.count) if exempt else 1
                assert traffic.reads.total() <= looks, traffic.reads
            assert [counted(entry) for entry in got.rounds] == [
                counted(entry) for entry in expected.rounds
            ]
            stopped += got.tokens[-1] in (1, 4)
    assert stopped


def counted(entry):
    return entry.count.proposed, entry.count.accepted, entry.count.emitted
