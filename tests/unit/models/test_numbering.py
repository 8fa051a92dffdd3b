"""Laws over what a picture can hold, and published ids at the edges."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.lengths.oracle_cost import OracleCost
from specbench.decoding.loops.jacobi import Jacobi
from specbench.decoding.loops.zipar import ZipAR
from specbench.decoding.tree import TreeMask
from specbench.law import Guidance, History, Law
from specbench.models.base import View
from specbench.models.guided import GuidedModel
from specbench.models.image import CODE, Grid
from specbench.models.numbering import Numbering
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.parts import Autoregressive, generate, pld
from tests.unit.decoding.pictures import Conditions, Side, toy_picture

END, FIRST, CODES, ROW_END, VOCAB = 1, 4, 5, 11, 13
GRID = Grid(rows=2, columns=3, row_end=ROW_END, ending=(END,))
ALLOWED = (END, *range(FIRST, FIRST + CODES), ROW_END)
PROMPT = (3, 10, 12)


def pair(narrow: bool, order: int = 3) -> ModelPair:
    """Forced tokens on both sides of the codes, words in between and on both sides."""
    models = [
        GuidedModel(
            TableModel(markov_table(order, VOCAB, seed), VOCAB),
            Conditions(),
            GRID,
            FIRST,
            CODES,
            VOCAB,
        )
        for seed in (0, 1)
    ]
    side = Side(GRID, torch.arange(CODES, dtype=torch.float32)[:, None], FIRST)
    made = ModelPair("picture", models[0], models[1], image=side)
    if narrow:
        made.narrow()
    return made


def test_allowed_ids_come_first_and_keep_their_order():
    numbering = Numbering(ALLOWED, VOCAB)
    assert numbering.width == len(ALLOWED)
    assert numbering.published(range(numbering.width)) == list(ALLOWED)
    assert numbering.numbers(numbering.published(range(VOCAB))) == list(range(VOCAB))
    assert min(numbering.numbers(PROMPT)) >= numbering.width


def test_the_pictures_side_of_a_narrow_pair_speaks_of_numbers():
    models = pair(narrow=True)
    assert models.image is not None
    assert (models.target.vocab_size, models.draft.vocab_size) == (7, 7)
    assert (models.image.first_code, models.image.grid.row_end) == (1, 6)
    assert models.image.grid.ending == (0,)
    models.narrow()
    assert models.target.vocab_size == 7


def forwards(models: ModelPair, law: Law, tokens: list[int]) -> torch.Tensor:
    """Logits of a prompt, of a window, of a step and of a tree."""
    models = models.under(law)
    target, cache = models.target, models.target_cache(64)
    own = models.numbers(tokens)
    rows = [target.forward(torch.tensor([models.numbers(PROMPT)]), cache, View(last=1))]
    rows.append(target.forward(torch.tensor([own[:4]]), cache))
    rows.append(target.forward(torch.tensor([own[4:5]]), cache))
    mask = TreeMask.from_parents((-1, -1, 0, 1))
    rows.append(
        target.forward(torch.tensor([[*own[5:7], own[5], own[6], own[6]]]), cache, View(mask=mask))
    )
    return torch.cat(rows, 1)[0]


@pytest.mark.parametrize("guidance", [Guidance(1.0), Guidance(2.0), Guidance(3.0, "linear")])
def test_narrow_laws_are_the_allowed_columns_of_wide_ones(guidance):
    law = Law(guidance=guidance)
    tokens = [4, 8, 5, ROW_END, 6, 7, 4, ROW_END]
    wide = forwards(pair(narrow=False), law, tokens)
    narrow = forwards(pair(narrow=True), law, tokens)
    assert narrow.shape[1] == len(ALLOWED)
    assert torch.equal(narrow, wide[:, list(ALLOWED)])
    others = [token for token in range(VOCAB) if token not in ALLOWED]
    assert bool((wide[:, others] == -torch.inf).all())


@pytest.mark.parametrize(
    "decoder",
    [Autoregressive(), Jacobi(4), ZipAR(2), pld()],
    ids=["ar", "jacobi", "zipar", "pld"],
)
@pytest.mark.parametrize(
    "law",
    [
        Law(0.0, guidance=Guidance(2.0)),
        Law(1.0, top_k=3, guidance=Guidance(2.0)),
        Law(0.8, repetition_penalty=1.5, guidance=Guidance(2.0)),
    ],
    ids=["greedy", "sampled", "penalty"],
)
def test_published_tokens_are_those_of_laws_over_all_ids(decoder, law):
    for seed in range(4):
        outputs = []
        for narrow in (False, True):
            models = pair(narrow)
            models = models.under(law)
            # a prompt that holds ids of both kinds, and codes behind words
            prompt = tuple(models.numbers((3, ROW_END, 10)))
            made = generate(decoder, models, law, prompt, GRID.length, seed)
            outputs.append(models.published(made.tokens))
        assert outputs[0] == outputs[1]
        pairs = zip(outputs[1], GRID.forced, strict=True)
        assert all(FIRST <= t < FIRST + CODES if f == CODE else t == f for t, f in pairs)


def test_words_without_a_column_leave_a_history_as_it_is():
    history = History(Law(repetition_penalty=2.0), torch.tensor([[9, 1, 7]]), 5)
    assert history.now().tolist() == [[False, True, False, False, False]]


def test_what_is_copied_from_a_prompt_ends_before_a_word():
    """The text ends as the prompt begins, and a word follows there."""
    models = pair(narrow=True)
    law = Law(0.0, guidance=Guidance(2.0))
    models = models.under(law)
    end, *words = models.numbers((END, 3, 10))
    made = generate(pld(), models, law, (end, *words), GRID.length + 4, 0)
    assert models.published(made.tokens)[GRID.length - 1 :] == [END] * 5


class WordsAlone(Conditions):
    """Rows of a prompt that has a begin and an end, neither of them a code."""

    def __init__(self, first):
        super().__init__()
        self.codes = set(range(first, first + CODES))

    def rows(self, prompt, count, unconditional="own"):
        assert len(prompt) > 1 and not set(prompt) & self.codes
        return super().rows(prompt, count, unconditional)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("first", [0, FIRST])
def test_costs_are_measured_behind_a_prompt_of_words(narrow, first):
    grid = Grid(rows=30, columns=12)
    body = TableModel(markov_table(1, VOCAB, 0), VOCAB)
    models = [GuidedModel(body, WordsAlone(first), grid, first, CODES, VOCAB) for _ in range(2)]
    side = Side(grid, torch.zeros(CODES, 1), first)
    made = ModelPair("picture", *models, image=side)
    if narrow:
        made.narrow()
    OracleCost().prepare(made)


def test_models_that_write_text_before_they_draw_keep_all_ids():
    models = toy_picture(text=2)
    width = models.target.vocab_size
    models.narrow()
    assert models.target.vocab_size == width and models.numbering is None
