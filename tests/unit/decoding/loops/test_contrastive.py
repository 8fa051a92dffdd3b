"""Contrastive search against its definition, computed from scratch for every token."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.loops import contrastive
from specbench.decoding.loops.branches import parallel_chains
from specbench.decoding.loops.contrastive import Contrastive
from specbench.errors import ConfigError
from specbench.law import History, Law
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.loops.references import checkpoint, counts, logits_after
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

GREEDY = [Law(temperature=0), Law(temperature=0, repetition_penalty=1.5)]
PROMPT = (3, 5, 9, 11, 40, 7)


@pytest.mark.parametrize("law", GREEDY)
@pytest.mark.parametrize("candidates", [1, 2, 5, 99])
@pytest.mark.parametrize("seed", range(3))
def test_without_penalty_it_is_greedy_decoding(law, candidates, seed):
    models = table_pair(vocab=5, seed=seed)
    plain = generate(Autoregressive(), models, law, count=40)
    got = generate(Contrastive(0.0, candidates), models, law, count=40)
    assert got.tokens == plain.tokens


def test_ties_go_to_the_lowest_id():
    models = ModelPair("tied", TableModel(lambda context: torch.ones(5, dtype=torch.float64), 5))
    assert generate(Contrastive(0.0, 3), models, Law(temperature=0), count=4).tokens == (0,) * 4


def test_with_penalty_alone_it_takes_what_was_never_said():
    """The hidden state of the toy is the token itself: a likeness of 1 to a repetition."""
    models = table_pair(vocab=6)
    got = generate(Contrastive(1.0, 6), models, Law(temperature=0), (0, 1), 4)
    assert sorted(got.tokens) == [2, 3, 4, 5]


def reference(module, law, prompt, count, alpha, candidates):
    """Return the tokens by the definition: one forward of the whole text for each candidate."""

    def run(text):
        output = module(input_ids=torch.tensor([text]), output_hidden_states=True)
        return output.logits[0, -1], output.hidden_states[-1][0]

    text = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            logits, _ = run(text)
            seen = History(law, torch.tensor([text]), logits.shape[-1]).now()
            logits = law.penalise(logits, None if seen is None else seen[0])
            law_here = logits.softmax(-1)
            scores = {}
            for token in logits.topk(candidates).indices.tolist():
                _, states = run([*text, token])
                likeness = max(
                    torch.cosine_similarity(states[-1], earlier, dim=0).item()
                    for earlier in states[:-1]
                )
                scores[token] = (1 - alpha) * law_here[token].item() - alpha * likeness
            text.append(max(scores, key=scores.get))
    return text[len(prompt) :]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrastive")
    module = checkpoint(folder, "llama3")
    lean = LeanDecoder.of(checkpoint(folder, "llama3"), "l", torch.device("cpu"), torch.float64)
    return module, ModelPair("lean", lean)


@pytest.mark.parametrize("law", GREEDY)
@pytest.mark.parametrize(("alpha", "candidates"), [(0.6, 5), (0.2, 3), (1.0, 4)])
def test_the_definition_on_a_checkpoint(both, law, alpha, candidates):
    module, models = both
    expected = reference(module, law, PROMPT, 14, alpha, candidates)
    got = generate(Contrastive(alpha, candidates), models, law, PROMPT, 14)
    assert list(got.tokens) == expected
    plain = generate(Autoregressive(), models, law, PROMPT, 14)
    assert got.tokens != plain.tokens, "the penalty would have been unseen"


def test_candidates_that_see_each_other_are_noticed(both, monkeypatch):
    """Mutation: the siblings are fed in causal order."""
    module, models = both
    law = Law(temperature=0)
    expected = reference(module, law, PROMPT, 14, 0.6, 5)
    monkeypatch.setattr(contrastive, "parallel_chains", lambda *_: (None,))
    got = generate(Contrastive(0.6, 5), models, law, PROMPT, 14)
    assert list(got.tokens) != expected


def test_a_stale_cache_row_is_noticed(both, monkeypatch):
    """Mutation: the first candidate's keys and values stay, whichever was chosen."""
    module, models = both
    law = Law(temperature=0)
    expected = reference(module, law, PROMPT, 14, 0.6, 5)
    cache = type(models.target_cache(64))
    monkeypatch.setattr(cache, "_gather", lambda self, row, start, kept: None)
    got = generate(Contrastive(0.6, 5), models, law, PROMPT, 14)
    assert list(got.tokens) != expected


def test_the_ledger_counts_every_candidate():
    generation = generate(Contrastive(0.6, 3), table_pair(vocab=5), Law(temperature=0), count=9)
    got = counts(generation)
    assert (got[0].target.forwards, got[0].target.tokens) == (2, 2 + 3)
    assert all((c.target.forwards, c.target.tokens, c.emitted) == (1, 3, 1) for c in got[1:])
    assert parallel_chains(3, 1)[0].ancestors.equal(torch.eye(3).bool())


def test_bad_input_is_refused():
    for options in ({"alpha": -0.1}, {"alpha": 1.1}, {"alpha": 0.5, "candidates": 0}):
        with pytest.raises(ConfigError):
            Contrastive(**options)
    with pytest.raises(ConfigError, match="temperature"):
        Contrastive(0.6).check(Law())
    assert logits_after(table_pair().target, Law(), [0]).shape == (3,)
