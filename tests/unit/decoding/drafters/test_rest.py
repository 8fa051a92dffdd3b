"""REST proposes the most frequent continuations, and changes no token of the target."""

from __future__ import annotations

from collections import Counter

import pytest

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import rest
from specbench.decoding.drafters.rest import SuffixRetrieval
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.drafters.stores import (
    paths_of,
    random_texts,
    suffix_store,
    typical_texts,
    watch,
)
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, cyclic_table, generate, table_pair

LAWS = [
    Law(temperature=0),
    Law(temperature=0, repetition_penalty=1.5),
    Law(),
    Law(temperature=0.7, top_p=0.8),
]


def decoder_of(store, models, **options):
    drafter = SuffixRetrieval(store, **options)
    decoder = DraftVerify(drafter, Chain(), Constant(99), SampleMatch())
    decoder.prepare(models)
    return decoder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return suffix_store(tmp_path_factory.mktemp("rest") / "store", typical_texts(5, seed=0))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(3))
def test_retrieval_changes_no_token(store, law, seed):
    models = table_pair(vocab=5)
    expected = generate(Autoregressive(), models, law, count=50, seed=seed)
    got = generate(decoder_of(store, models), models, law, count=50, seed=seed)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.6, top_k=2)])
def test_the_emitted_law_is_the_targets(tmp_path, law):
    models = table_pair(vocab=3)
    store = suffix_store(tmp_path / "s", random_texts(0, 3))
    decoder = decoder_of(store, models, shortest=1, draft_nodes=3)
    proposals = watch(decoder)
    emitted = output_law(decoder, models, law, (0, 1), 3)
    assert distance(emitted, true_law(models, law, (0, 1), 3)) < 1e-12
    assert any(not scored.tree.is_chain for scored, _ in proposals)


@pytest.mark.parametrize("nodes", [4, 64])
def test_the_tree_is_that_of_brute_force(tmp_path, nodes):
    texts = random_texts(1, 4)
    models = table_pair(vocab=4)
    decoder = decoder_of(suffix_store(tmp_path / "s", texts), models, draft_nodes=nodes)
    proposals = watch(decoder)
    tokens = [0, 1, *generate(decoder, models, Law(), count=40).tokens]
    checked = 0
    for scored, _ in proposals:
        text = "".join(map(str, tokens[: scored.positions[0]]))
        length = next((n for n in range(16, 1, -1) if any(text[-n:] in t for t in texts)), 0)
        length = min(length, len(text))
        after = [
            t[place + length : place + length + 10]
            for t in texts
            for place in range(len(t) - length + 1)
            if length and t[place : place + length] == text[-length:]
        ]
        room = 42 - len(text) - 1
        counts = Counter(a[:stop] for a in after for stop in range(1, min(len(a), room) + 1))
        found = {"".join(map(str, path)) for path in paths_of(scored.tree)}
        assert len(found) == scored.tree.size == min(nodes, len(counts))
        least = min((counts[path] for path in found), default=0)
        assert all(count <= least for path, count in counts.items() if path not in found)
        checked += bool(found)
    assert checked > 5


def test_no_hit_is_a_plain_step(tmp_path):
    models = table_pair(vocab=5)
    decoder = decoder_of(suffix_store(tmp_path / "s", ["0", "1", "2"]), models)
    generation = generate(decoder, models, Law(temperature=0), count=12)
    assert all(r.count.proposed == r.count.nodes == 0 for r in generation.rounds)
    assert len(generation.rounds) == 12


def test_a_known_text_is_copied_ten_tokens_a_round(tmp_path):
    models = ModelPair("cycle", TableModel(cyclic_table(7, 8), 8))
    decoder = decoder_of(suffix_store(tmp_path / "s", ["0123456" * 20]), models)
    generation = generate(decoder, models, Law(temperature=0), (0, 1, 2, 3), 45)
    assert [r.count.emitted for r in generation.rounds] == [1, 11, 11, 11, 11]


def test_a_text_without_separators_would_draft_across_documents(tmp_path):
    """Trap: the released datastore joins documents and drafts from one into the next."""
    models = ModelPair("cycle", TableModel(cyclic_table(7, 8), 8))
    apart = decoder_of(suffix_store(tmp_path / "a", ["0123", "4560", "123"]), models)
    joined = decoder_of(suffix_store(tmp_path / "j", ["01234560123"]), models)
    deepest = [
        max(scored.tree.depth for scored, _ in seen)
        for seen, decoder in ((watch(d), d) for d in (apart, joined))
        if generate(decoder, models, Law(temperature=0), (0, 1, 2), 20)
    ]
    assert deepest[0] < 4 < deepest[1]


def test_the_released_cut_proposes_less(tmp_path):
    models = table_pair(vocab=4)
    store = suffix_store(tmp_path / "s", random_texts(1, 4, count=20))
    sizes = {}
    for trim in ("nodes", "released"):
        decoder = decoder_of(store, models, trim=trim)
        seen = watch(decoder)
        generate(decoder, models, Law(temperature=0), count=30)
        sizes[trim] = [scored.tree.size for scored, _ in seen]
    assert max(sizes["nodes"]) == 64 > 2 * max(sizes["released"])


def test_before_preparing_every_step_is_plain(store):
    models = table_pair(vocab=5)
    decoder = DraftVerify(SuffixRetrieval(store), Chain(), Constant(9), SampleMatch())
    assert len(generate(decoder, models, Law(), count=9).rounds) == 9


class Vocabulary:
    def __init__(self, words):
        self._words = words

    def get_vocab(self):
        return self._words


def test_a_datastore_of_another_tokenizer_is_refused(store):
    models = table_pair(vocab=5)
    models.tokenizer = Vocabulary({"a": 0})
    with pytest.raises(ConfigError, match="another tokenizer") as error:
        decoder_of(store, models)
    assert "specbench datastore build" in error.value.fix


def test_ids_that_the_model_does_not_know_are_refused(store):
    with pytest.raises(ConfigError, match="does not know"):
        decoder_of(store, table_pair(vocab=4))


@pytest.mark.parametrize(
    "options",
    [
        {"shortest": 0},
        {"longest": 1},
        {"matches": 0},
        {"continuation": 0},
        {"draft_nodes": 0},
        {"draft_nodes": 5000},
        {"draft_nodes": "many"},
        {"trim": "none"},
    ],
)
def test_values_out_of_range_are_refused_with_the_range(options):
    with pytest.raises(ConfigError) as error:
        SuffixRetrieval("anywhere", **options)
    assert "from" in error.value.why or "one of" in error.value.why


def test_a_wrong_proposal_would_be_noticed(store, monkeypatch):
    """Mutation: a tree whose tokens are shifted by one is accepted far less."""
    models = table_pair(vocab=5)
    law = Law(temperature=0)
    good = generate(decoder_of(store, models), models, law, count=40)
    real = rest.frequent_prefixes

    def shifted(rows, *rest):
        return real(rows[:, 1:], *rest)

    monkeypatch.setattr(rest, "frequent_prefixes", shifted)
    bad = generate(decoder_of(store, models), models, law, count=40)
    assert bad.tokens == good.tokens
    assert len(bad.rounds) > len(good.rounds)
