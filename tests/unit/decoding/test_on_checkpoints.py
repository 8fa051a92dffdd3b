"""Greedy token identity on real architectures in float64, with drafts that are often right."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.base import Drafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.law import Law
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from tests.unit.decoding.parts import Autoregressive, generate, pld, token_sd
from tests.unit.models import tiny_checkpoints

ENGINES = [
    ("llama3", "lean"),
    ("qwen3", "lean"),
    ("mistral_window", "lean"),
    ("gpt2", "transformers"),
    ("qwen2", "transformers"),
]


class HintedTrees(Drafter):
    """Trees that hold the true continuation among wrong branches, in shuffled sibling order."""

    def __init__(self, truth, seed):
        self._truth = truth
        self._generator = torch.Generator().manual_seed(seed)

    def begin(self, session, prefill):
        self._start = len(session.request.prompt)
        return self

    def _random(self, high):
        return int(torch.randint(0, high, (1,), generator=self._generator))

    def propose(self, state, plan):
        true = self._truth[len(state.committed) - self._start :][: min(5, plan.depth)]
        tokens, parents, spine = [], [], -1
        for right in true:
            wrong = (right + 1 + self._random(50)) % tiny_checkpoints.VOCAB
            siblings = [right, wrong] if self._random(2) else [wrong, right]
            base = len(tokens)
            tokens += siblings
            parents += [spine, spine]
            spine = base + siblings.index(right)
        return DraftTree(torch.tensor([tokens]), tuple(parents)) if tokens else None


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity")
    made = {}

    def load(name, engine):
        if (name, engine) not in made:
            path = tiny_checkpoints.write(folder, name)
            models = []
            for noise in (0.0, 0.02):
                module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
                torch.manual_seed(1)
                for parameter in module.parameters():
                    parameter.data += noise * torch.randn_like(parameter)
                if engine == "lean":
                    models.append(LeanDecoder.of(module, name, torch.device("cpu"), torch.float64))
                else:
                    models.append(CausalLM(module, name))
            made[name, engine] = ModelPair(name, *models)
        return made[name, engine]

    return load


@pytest.mark.parametrize("law", [Law(temperature=0), Law(temperature=0, repetition_penalty=1.3)])
@pytest.mark.parametrize(("name", "engine"), ENGINES)
@pytest.mark.parametrize("length", [1, pytest.param(13, marks=pytest.mark.slow), 40])
def test_greedy_tokens_are_plain_decodings(pairs, name, engine, law, length):
    models = pairs(name, engine)
    prompt = tuple((7 * i + i * i) % tiny_checkpoints.VOCAB for i in range(length))
    expected = generate(Autoregressive(), models, law, prompt, 30)
    tree = DraftVerify(HintedTrees(expected.tokens, length), Chain(), Constant(9), SampleMatch())
    for decoder in (token_sd(4), pld(6), tree):
        assert generate(decoder, models, law, prompt, 30).tokens == expected.tokens
    rounds = generate(tree, models, law, prompt, 30).rounds
    assert len(rounds) <= 7, "the true path was not followed"


def test_the_noisy_draft_is_partly_accepted(pairs):
    """Otherwise the identity above would only have tested rejections."""
    models = pairs("llama3", "lean")
    rounds = generate(token_sd(4), models, Law(temperature=0), (3, 5, 9), 60).rounds
    accepted = sum(r.count.accepted for r in rounds) / sum(r.count.proposed for r in rounds)
    assert 0.1 < accepted < 0.98


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_sampled_prompt_lookup_and_trees_are_plain_decodings(pairs, temperature):
    models = pairs("qwen3", "lean")
    law = Law(temperature=temperature, top_k=40)
    expected = generate(Autoregressive(), models, law, (3, 5, 9), 40)
    tree = DraftVerify(HintedTrees(expected.tokens, 0), Chain(), Constant(9), SampleMatch())
    for decoder in (pld(6), tree):
        assert generate(decoder, models, law, (3, 5, 9), 40).tokens == expected.tokens
