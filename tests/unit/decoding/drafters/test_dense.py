"""DReSD looks up the state that chose the newest token, and changes no token of the target.

The toy target's hidden state is the code of the last token read, so its neighbours are the
places after the same token: agreeing ones continue the same pair of tokens.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import dense_retrieval
from specbench.decoding.drafters.base import Prefill
from specbench.decoding.drafters.dense_retrieval import DenseRetrieval
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.errors import ConfigError
from specbench.law import Law
from tests.unit.decoding.drafters.stores import (
    dense_store,
    paths_of,
    random_texts,
    typical_texts,
    watch,
)
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

LAWS = [Law(temperature=0), Law(temperature=0, repetition_penalty=1.5), Law(), Law(top_p=0.8)]
EQUAL = 20
ALL = {"neighbours": EQUAL, "drafts": 256, "exact": True}


def decoder_of(store, models, drafter=DenseRetrieval, **options):
    decoder = DraftVerify(drafter(store, **options), Chain(), Constant(99), SampleMatch())
    decoder.prepare(models)
    return decoder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense") / "store"
    return dense_store(folder, typical_texts(5, seed=0), table_pair(vocab=5))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("exact", [True, False])
def test_retrieval_changes_no_token(store, law, exact):
    models = table_pair(vocab=5)
    expected = generate(Autoregressive(), models, law, count=50)
    got = generate(decoder_of(store, models, exact=exact), models, law, count=50)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


def test_the_emitted_law_is_the_targets(tmp_path):
    models = table_pair(vocab=3)
    store = dense_store(tmp_path / "s", random_texts(0, 3, count=1), models)
    decoder = decoder_of(store, models, drafts=2, continuation=2, exact=True)
    proposals = watch(decoder)
    emitted = output_law(decoder, models, Law(), (0, 1), 3)
    assert distance(emitted, true_law(models, Law(), (0, 1), 3)) < 1e-12
    assert any(scored.tree.size > 1 for scored, _ in proposals)


def balanced_text():
    """Return a text in which every token stands EQUAL times before another one.

    The EQUAL nearest states are then exactly those of the same token.
    """
    digits = list("0123" * EQUAL)
    random.Random(0).shuffle(digits)
    return ["".join(digits) + "0"]


def pairs_of_brute_force(texts, before, newest, room):
    """Return every prefix of what follows a pair of tokens, at most `room` tokens long."""
    pair = f"{before}{newest}"
    return {
        text[place + 2 : stop]
        for text in texts
        for place in range(len(text) - 1)
        if text[place : place + 2] == pair
        for stop in range(place + 3, min(place + 2 + room, len(text)) + 1)
    }


def proposals_match(decoder, models, texts, count=40):
    """Say of every round whether the tree is that of brute force."""
    seen = watch(decoder)
    tokens = [0, 1, *generate(decoder, models, Law(), count=count).tokens]
    matches = []
    for scored, _ in seen:
        end = scored.positions[0]
        room = min(9, 2 + count - end - 1)
        expected = pairs_of_brute_force(texts, tokens[end - 2], tokens[end - 1], room)
        found = ["".join(map(str, path)) for path in paths_of(scored.tree)]
        matches.append(set(found) == expected and len(found) == len(expected))
    return matches


def test_the_query_is_the_state_that_chose_the_newest_token(tmp_path):
    models = table_pair(vocab=4)
    texts = balanced_text()
    store = dense_store(tmp_path / "s", texts, models)
    assert all(proposals_match(decoder_of(store, models, **ALL), models, texts))


def test_a_state_of_another_row_would_be_noticed(tmp_path, monkeypatch):
    """Mutation: the root's state after every round, or the state of the newest token itself."""

    def stale(self, session, outcome):
        self._query = outcome.kept[0][0, 0]

    def following(self, session, outcome):
        code = torch.zeros_like(outcome.kept[0][0, 0])
        code[session.committed[-1]] = 1
        self._query = code

    models = table_pair(vocab=4)
    texts = balanced_text()
    store = dense_store(tmp_path / "s", texts, models)
    for broken in (stale, following):
        monkeypatch.setattr(dense_retrieval._Following, "observe", broken)
        assert not all(proposals_match(decoder_of(store, models, **ALL), models, texts))


def test_only_the_nearest_drafts_are_taken(store):
    models = table_pair(vocab=5)
    decoder = decoder_of(store, models, drafts=2, continuation=3)
    seen = watch(decoder)
    generate(decoder, models, Law(temperature=0), count=30)
    assert 0 < max(scored.tree.size for scored, _ in seen) <= 6
    assert max(scored.tree.depth for scored, _ in seen) == 3


def test_states_of_another_width_are_refused(store):
    models = table_pair(vocab=5)
    drafter = DenseRetrieval(store)
    drafter.prepare(models)
    prefill = Prefill(torch.zeros(1), (torch.zeros(1, 1, 7),))
    with pytest.raises(ConfigError, match="width 5"):
        drafter.begin(SimpleNamespace(models=models), prefill)


def test_states_of_another_model_are_refused(tmp_path, store):
    from specbench.datastore.format import read_metadata, write_metadata

    folder = tmp_path / "s"
    dense_store(folder, ["0123"], table_pair(vocab=5))
    from dataclasses import replace

    write_metadata(folder, replace(read_metadata(folder), model="sha256:one"))
    models = table_pair(vocab=5)
    models.provenance = {"target": {"digest": "sha256:two"}}
    with pytest.raises(ConfigError, match="another model"):
        decoder_of(str(folder), models)
    models.provenance = {"target": {"digest": "sha256:one"}}
    decoder_of(str(folder), models)


@pytest.mark.parametrize("options", [{"neighbours": 0}, {"drafts": 0}, {"continuation": 300}])
def test_values_out_of_range_are_refused_with_the_range(options):
    with pytest.raises(ConfigError) as error:
        DenseRetrieval("anywhere", **options)
    assert "from" in error.value.why
