"""DEL: exact whatever exit it chooses, and its statistics are what the blocks would have said."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.dynamic_exit import DynamicExit
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.search.exits import Exits
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.base import Taps, View
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.drafters.stores import watch
from tests.unit.decoding.drafters.test_early_exit import LAWS, PROMPT, shallow_pair
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate
from tests.unit.models import tiny_checkpoints

GREEDY = Law(temperature=0)


def dynamic(**options):
    return DraftVerify(DynamicExit(**options), Chain(), Constant(18), TokenSD())


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return tiny_checkpoints.pairs(tmp_path_factory.mktemp("dynamic_exit"))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_law_equals_the_targets(law):
    models = shallow_pair()
    got = output_law(dynamic(max_length=2), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < 1e-12


@pytest.mark.parametrize("name", ["llama3", "qwen3", "mistral_window"])
def test_greedy_tokens_are_plain_decodings_on_real_architectures(real, name):
    models = real(name, "lean")
    for length in (1, 40):
        prompt = tuple((7 * i + i * i) % tiny_checkpoints.VOCAB for i in range(length))
        expected = generate(Autoregressive(), models, GREEDY, prompt, 40)
        assert generate(dynamic(), models, GREEDY, prompt, 40).tokens == expected.tokens


def tables_of(models, monkeypatch, prompt, count):
    """Return every round's table of agreement, and what was scored in it."""
    tables, update = [], Exits.update

    def noting(self, agree, sure, context=0):
        tables.append((agree, sure, context))
        update(self, agree, sure, context)

    monkeypatch.setattr(Exits, "update", noting)
    decoder = dynamic()
    seen = watch(decoder)
    generation = generate(decoder, models, GREEDY, prompt, count)
    return tables, seen, [*prompt, *generation.tokens]


def test_the_tables_are_what_every_block_would_have_said(real, monkeypatch):
    models, prompt = real("llama3", "lean"), (3, 5, 9, 4, 4, 1)
    tables, seen, text = tables_of(models, monkeypatch, prompt, 30)
    exits = models.target.layers - 1
    for (agree, sure, context), (scored, _) in zip(tables, seen, strict=True):
        start = scored.positions[0]
        fed = [*text[:start], *scored.tree.tokens[0].tolist()]
        taps = Taps(tuple(range(exits)))
        cache = models.target.new_cache(1, 64)
        logits = models.target.forward(torch.tensor([fed]), cache, View(taps=taps))[0]
        shadows = [models.target.head(state, normed=False)[0] for state in taps.states]
        places = [*range(context), *range(start - 1, len(fed))]
        for row, shadow in enumerate(shadows):
            same = shadow[places].argmax(-1) == logits[places].argmax(-1)
            assert agree[row].tolist() == same.tolist()
            expected = shadow[places].softmax(-1).amax(-1)
            torch.testing.assert_close(torch.tensor(sure[row]).float(), expected.float())
    assert [context for *_, context in tables] == [len(prompt)] + [0] * (len(tables) - 1)


def test_states_of_the_blocks_behind_would_be_noticed(real, monkeypatch):
    """Mutation: every exit is judged by the state of the block behind its own."""
    taps = DynamicExit.taps
    monkeypatch.setattr(
        DynamicExit, "taps", lambda self, models: tuple(max(i, 0) for i in taps(self, models)[1:])
    )
    with pytest.raises((AssertionError, ValueError, KeyError, RuntimeError, IndexError)):
        test_the_tables_are_what_every_block_would_have_said(real, monkeypatch)


def test_rounds_begin_with_one_token_of_the_first_exit_and_every_prompt_anew():
    models, decoder = shallow_pair(vocab=6), dynamic()
    once, again = (generate(decoder, models, GREEDY, count=40).rounds for _ in range(2))
    assert once[1].count.proposed == 1
    assert [r.count for r in once] == [r.count for r in again]


def test_a_target_of_one_block_is_refused():
    target = TableModel(markov_table(1, 3, 0), 3)
    target.layers = 1
    with pytest.raises(ConfigError, match="exit of its own"):
        DynamicExit().prepare(ModelPair("flat", target))
