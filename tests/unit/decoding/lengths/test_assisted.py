"""The draft lengths of assisted generation, against transformers itself."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from transformers.generation.candidate_generator import AssistedCandidateGenerator

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.lengths.assisted import Assisted, best_threshold
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.lengths.heuristic import Heuristic
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.law import Law
from specbench.models.causal_lm import CausalLM
from specbench.models.pair import ModelPair
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.loops.references import checkpoint
from tests.unit.decoding.parts import generate, table_pair

PROMPT = (0, 1, 0, 2, 0, 1)


def chain(length):
    return DraftVerify(ModelDrafter(), Chain(), length, TokenSD())


def theirs(**options):
    """Return transformers' generator with nothing but what its strategy looks at."""
    pytest.importorskip("sklearn")
    generator = object.__new__(AssistedCandidateGenerator)
    settings = {"assistant_confidence_threshold": 0.4, "num_assistant_tokens_schedule": "constant"}
    generator.assistant_generation_config = SimpleNamespace(**settings | options)
    generator.generation_config = SimpleNamespace(assistant_confidence_threshold=0.4)
    generator.num_assistant_tokens = 20
    generator.probs, generator.matches = [], []
    return generator


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_moves_as_in_transformers(seed):
    """Whole rounds of random confidences, some of them equal, and random acceptance."""
    generator, part, draws = theirs(), Assisted(), random.Random(seed)
    policy = part.begin()
    moved = 0
    for _ in range(40):
        confidences = [draws.choice([0.2, 0.5, draws.random()]) for _ in range(draws.randint(1, 8))]
        accepted = draws.randint(0, len(confidences))
        for confidence in confidences:
            policy.ends(confidence)
        policy.update(len(confidences), accepted)
        generator.probs += confidences
        scores = torch.zeros(1, len(confidences) + 1, 1)
        generator.update_candidate_strategy(None, scores, accepted)
        expected = generator.assistant_generation_config.assistant_confidence_threshold
        assert policy.threshold == expected
        moved += expected != 0.4
    assert moved > 30
    assert part.begin().threshold == 0.4 and not part.begin()._probabilities


def test_the_best_threshold_by_hand():
    """The second: at 0.8 it costs 3 / 2, half of the accepted ones; at 0.3 half of the others."""
    assert best_threshold([0.9, 0.8, 0.6, 0.1], [True, True, False, False]) == 0.8
    assert best_threshold([0.8, 0.5, 0.3, 0.1], [True, False, True, False]) == 0.3
    assert best_threshold([0.5, 0.5, 0.2], [True, False, False]) == 0.5


def test_a_threshold_needs_six_tokens_of_both_kinds():
    policy = Assisted()
    for confidence in (0.9, 0.9, 0.9, 0.9, 0.1):
        policy.ends(confidence)
    policy.update(5, 4)
    assert policy.threshold == 0.4
    policy.ends(0.8)
    policy.update(1, 1)
    assert policy.threshold == 0.8


def test_without_refitting_it_is_a_fixed_threshold_or_a_schedule():
    models = table_pair(sharpness=2.0)
    for ours, plain in (
        (Assisted(0.55, refit=False, draft_length=6), ConfidenceStop(0.55, 6)),
        (Assisted(0, draft_length=3, increase=2, decrease=1), Heuristic(3)),
    ):
        got, expected = (generate(chain(p), models, Law(), count=60) for p in (ours, plain))
        assert [r.count for r in got.rounds] == [r.count for r in expected.rounds]


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.6)], ids=["plain", "cold"])
def test_the_law_is_the_targets(monkeypatch, law):
    monkeypatch.setattr("specbench.decoding.lengths.assisted.ENOUGH", 1)
    models = table_pair()
    got = output_law(chain(Assisted(0.55, draft_length=2)), models, law, PROMPT, 4)
    assert distance(got, true_law(models, law, PROMPT, 4)) < 1e-12


@pytest.mark.filterwarnings("ignore:.*past_key_values:FutureWarning")
def test_drafts_are_as_long_as_in_transformers_own_run(tmp_path, monkeypatch):
    """Greedy, on a checkpoint and a noisy copy: every round proposes and accepts the same."""
    pytest.importorskip("sklearn")
    target, draft = (checkpoint(tmp_path, "llama", noise) for noise in (0.0, 0.01))
    for module in (target, draft):
        module.lm_head.weight.data *= 12
        module.generation_config.eos_token_id = None
    seen = []
    update = AssistedCandidateGenerator.update_candidate_strategy

    def watched(self, input_ids, scores, num_matches):
        seen.append((scores.shape[1] - 1, int(num_matches)))
        update(self, input_ids, scores, num_matches)

    monkeypatch.setattr(AssistedCandidateGenerator, "update_candidate_strategy", watched)
    models = ModelPair("pair", CausalLM(target, "target"), CausalLM(draft, "draft"))
    policy = Assisted()
    policy.begin = lambda: policy  # to look at it afterwards
    got = generate(chain(policy), models, Law(temperature=0), (3, 5, 9), 80)
    # Ours takes the first token from the prompt's own forward; theirs drafts at once.
    begun = torch.tensor([[3, 5, 9, got.tokens[0]]])
    tokens = target.generate(begun, assistant_model=draft, do_sample=False, max_new_tokens=79)
    assert tokens[0, 3:].tolist() == list(got.tokens)
    rounds = [(entry.count.proposed, entry.count.accepted) for entry in got.rounds[1:]]
    assert rounds[:-1] == seen[: len(rounds) - 1]
    assert policy.threshold != 0.4 and len({proposed for proposed, _ in rounds}) > 2
