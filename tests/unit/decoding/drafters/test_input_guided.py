"""Input-guided aggressive decoding: where the source is copied from, and when not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.input_guided import Alignment, InputGuided
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

GREEDY = Law(temperature=0)


def decoder(draft_length=99, **options):
    return DraftVerify(InputGuided(**options), Chain(), Constant(draft_length), SampleMatch())


def indexed(prompt, **options):
    clock = CpuClock()
    clock.start()
    session = SimpleNamespace(request=SimpleNamespace(prompt=tuple(prompt)), clock=clock)
    return InputGuided(**options).begin(session, None)


def editor(prompt, edited, vocab):
    """A target that writes `edited` after the prompt, whatever was drafted."""

    def table(context):
        logits = torch.zeros(vocab, dtype=torch.float64)
        done = len(context) - len(prompt)
        right = 0 <= done < len(edited) and tuple(context[len(prompt) :]) == tuple(edited[:done])
        logits[edited[done] if right else 0] = 50.0
        return logits

    return ModelPair("editor", TableModel(table, vocab))


def test_the_shortest_unique_ngram_aligns():
    drafter = indexed([1, 2, 3, 4, 2, 5, 6, 2, 3, 7])
    assert drafter.find([9, 4]) == 4
    assert drafter.find([9, 2]) == -1, "2 occurs three times and 9 2 never"
    assert drafter.find([4, 2]) == 5
    assert drafter.find([2, 3]) == -1, "2 3 occurs twice"
    assert drafter.find([1, 2, 3]) == 3
    assert drafter.find([8]) == -1
    assert drafter.find([5]) == 6


def test_an_ngram_that_does_not_occur_ends_the_search():
    """The released rule looks no further, although a longer n-gram cannot occur either."""
    drafter = indexed([1, 2, 1, 3], ngram_max=2)
    assert drafter.find([4, 1]) == -1
    assert drafter.find([2, 1]) == 3


def test_an_edit_of_one_token_costs_a_few_rounds():
    source = list(range(10, 40))
    edited = [*source[:12], 5, *source[13:]]
    models = editor(source, edited, 41)
    generation = generate(decoder(), models, GREEDY, source, len(edited))
    assert list(generation.tokens) == edited
    emitted = [r.count.emitted for r in generation.rounds]
    assert emitted == [1, 12, 1, 16], "first token, copy and edit, one plain step, the rest"


def test_draft_length_limits_the_copy():
    source = list(range(10, 40))
    generation = generate(decoder(5), editor(source, source, 41), GREEDY, source, 30)
    assert max(r.count.proposed for r in generation.rounds) == 5


def test_nothing_is_copied_before_the_text_is_aligned():
    models = editor([1, 2, 3], [7, 7, 7, 7], 9)
    rounds = generate(decoder(), models, GREEDY, (1, 2, 3), 4).rounds
    assert [r.count.proposed for r in rounds] == [0, 0, 0, 0]


def test_a_copy_that_skips_one_token_is_worse(monkeypatch):
    """Mutation: aligning one token too far copies what never follows."""
    source = list(range(10, 40))
    models = editor(source, source, 41)
    original = Alignment.find
    right = generate(decoder(), models, GREEDY, source, 30)
    monkeypatch.setattr(Alignment, "find", lambda self, text: original(self, text) + 1)
    wrong = generate(decoder(), models, GREEDY, source, 30)
    assert wrong.tokens == right.tokens
    assert len(wrong.rounds) == 30 and len(right.rounds) == 2


@pytest.mark.parametrize("law", [GREEDY, Law(temperature=0, repetition_penalty=1.6), Law(top_k=3)])
@pytest.mark.parametrize("prompt", [(0,), (1, 2, 1, 2, 0), (0, 1, 2, 3, 4)])
def test_tokens_are_plain_decodings(law, prompt):
    models = table_pair(vocab=5, sharpness=3.0)
    expected = generate(Autoregressive(), models, law, prompt, 40)
    assert generate(decoder(4), models, law, prompt, 40).tokens == expected.tokens


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.8, top_k=2, repetition_penalty=1.3)])
def test_law_equals_the_targets(law):
    models = table_pair()
    prompt = (0, 1, 2, 1)
    got = output_law(decoder(2), models, law, prompt, 3)
    assert distance(got, true_law(models, law, prompt, 3)) < 1e-12


@pytest.mark.parametrize("options", [{"ngram_min": 0}, {"ngram_min": 3, "ngram_max": 2}])
def test_impossible_ngrams_are_refused(options):
    with pytest.raises(ConfigError):
        InputGuided(**options)
