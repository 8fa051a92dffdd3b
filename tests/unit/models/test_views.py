"""A forward may enter and leave at any block, take features, and see each row's own tree."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.decoding.tree import TreeMask
from specbench.models.aligned import AlignedDraft
from specbench.models.base import Taps, View
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.static import StaticDecoder
from specbench.models.table import TableModel, markov_table
from tests.unit.models import tiny_checkpoints

CPU = torch.device("cpu")
NAMES = ("llama", "qwen3", "mistral_window")
TREE = TreeMask.from_parents((-1, -1, 0, 0, 1, 4))
OTHER = TreeMask.from_parents((-1, 0, 1, 2, -1, -1))
COUNT = 7


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("views"), {}

    def model_of(name, engine):
        if (name, engine) not in made:
            if engine == "table":
                table = markov_table(3, tiny_checkpoints.VOCAB // 8, 0)
                made[name, engine] = TableModel(table, tiny_checkpoints.VOCAB // 8)
                return made[name, engine]
            path = tiny_checkpoints.write(folder, name)
            module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
            if engine == "transformers":
                made[name, engine] = CausalLM(module, name)
            else:
                lean = LeanDecoder.of(module, name, CPU, torch.float64)
                made[name, engine] = StaticDecoder(lean) if engine == "static" else lean
        return made[name, engine]

    return model_of


def tokens_of(rows, count, vocabulary=tiny_checkpoints.VOCAB):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, vocabulary, (rows, count), generator=generator)


@pytest.mark.parametrize("engine", ["lean", "static"])
@pytest.mark.parametrize("mask", [None, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_states_of_a_block_fed_in_behind_it_give_the_very_logits(load, name, block, mask, engine):
    model = load(name, engine)
    cache, taps = model.new_cache(1, 64), Taps((block,))
    model.forward(tokens_of(1, 9), cache, View(last=1))
    whole = model.forward(tokens_of(1, COUNT), cache, View(mask, taps=taps))
    cache.truncate([9])
    again = model.forward(taps.states[0], cache, View(mask, first_layer=block + 1))
    assert torch.equal(again, whole)
    assert cache.lengths == [9 + COUNT]


@pytest.mark.parametrize("engine", ["lean", "static"])
@pytest.mark.parametrize("name", NAMES)
def test_a_draft_that_leaves_early_is_finished_by_the_blocks_behind(load, name, engine):
    """Self-speculation: the drafted tokens' first blocks are computed once."""
    model, tokens = load(name, engine), tokens_of(1, COUNT)
    cache, taps = model.new_cache(1, 64), Taps((0,))
    model.forward(tokens_of(1, 9), cache, View(last=1))
    states = []
    for token in tokens.split(1, 1):
        early = model.forward(token, cache, View(taps=taps, last_layer=0))
        torch.testing.assert_close(early, model.head(taps.states[0], normed=False))
        states.append(taps.states[0])
    cache.truncate([9])
    finished = model.forward(torch.cat(states, 1), cache, View(first_layer=1))
    after = model.forward(tokens[:, :1], cache)
    plain = model.new_cache(1, 64)
    model.forward(tokens_of(1, 9), plain, View(last=1))
    torch.testing.assert_close(finished, model.forward(tokens, plain))
    torch.testing.assert_close(after, model.forward(tokens[:, :1], plain))


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_and_final_states_are_the_ends_of_a_forward(load, name):
    model, tokens = load(name, "lean"), tokens_of(2, 12)
    taps = Taps((-1,))
    whole = model.forward(tokens, model.new_cache(2, 32), View(taps=taps))
    assert torch.equal(model.forward(model.embed(tokens), model.new_cache(2, 32)), whole)
    assert torch.equal(model.head(taps.states[0]), whole)


@pytest.mark.parametrize("engine", ["lean", "static", "transformers", "table"])
def test_a_forward_for_its_taps_gives_no_logits(load, engine):
    model = load("llama", engine)
    tokens = tokens_of(2, 6, model.vocab_size)
    taps, silent = Taps((-1,)), Taps((-1,))
    model.forward(tokens, model.new_cache(2, 8), View(taps=taps))
    logits = model.forward(tokens, model.new_cache(2, 8), View(taps=silent, logits=False))
    assert logits.shape == (2, 0, model.vocab_size)
    assert torch.equal(silent.states[0], taps.states[0])


@pytest.mark.parametrize("lengths", [(9, 9), (9, 4)], ids=["even", "ragged"])
@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, engine) for name in NAMES for engine in ("lean", "static", "transformers")]
    + [("table", "table")],
)
def test_masks_of_their_own_equal_row_by_row_forwards(load, name, engine, lengths):
    model = load(name, engine)
    prompts = tokens_of(2, 9, model.vocab_size)
    tokens = tokens_of(2, COUNT, model.vocab_size)
    masks = (TREE, OTHER)
    alone = []
    for row, (mask, length) in enumerate(zip(masks, lengths, strict=True)):
        cache = model.new_cache(1, 64)
        model.forward(prompts[row : row + 1, :length], cache)
        alone.append(model.forward(tokens[row : row + 1], cache, View(mask)))
    both = TreeMask(*(torch.stack(parts) for parts in zip(*map(_parts, masks), strict=True)))
    cache = model.new_cache(2, 64)
    model.forward(prompts, cache)
    cache.truncate(lengths)
    for _ in range(2):  # a mask that is met again comes from a table
        together = model.forward(tokens, cache, View(both))
        torch.testing.assert_close(together, torch.cat(alone))
        cache.truncate(lengths)


def _parts(mask):
    return mask.offsets, mask.ancestors


def test_a_draft_of_fewer_ids_takes_features_too(load):
    body = load("llama", "lean")
    draft = AlignedDraft(body, body.vocab_size + 5)
    tokens = tokens_of(1, 4)
    tokens[0, 2] = body.vocab_size + 1
    whole = draft.forward(tokens, draft.new_cache(1, 8))
    fed = draft.embed(tokens)
    assert torch.equal(draft.forward(fed, draft.new_cache(1, 8)), whole)
    assert whole.shape[-1] == draft.vocab_size and whole[..., -5:].eq(-torch.inf).all()


def test_a_tables_state_stands_for_its_token():
    model = TableModel(markov_table(1, 5, 0), 5)
    tokens, taps = tokens_of(1, 6, 5), Taps((2,))
    whole = model.forward(tokens, model.new_cache(1, 8), View(taps=taps))
    assert torch.equal(model.forward(taps.states[0], model.new_cache(1, 8)), whole)
    assert torch.equal(model.head(taps.states[0]), whole)
