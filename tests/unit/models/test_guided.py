"""Guidance and grid constraints behind the Model port."""

from typing import get_args

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.loops.jacobi import Jacobi
from specbench.decoding.request import Request
from specbench.decoding.tree import TreeMask
from specbench.law import Guidance, Law
from specbench.models.base import View
from specbench.models.guided import GuidedModel
from specbench.models.image import CODE, Grid, Rows
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.rng import Streams
from specbench.schema.config import Unconditional

FIRST, CODES, ROW_END, END, NULL, PAD = 2, 4, 6, 7, 8, 9
VOCAB = 10
GRID = Grid(rows=2, columns=2, row_end=ROW_END, ending=(END,))
TABLE = markov_table(3, VOCAB, seed=3)


def table(context):
    """A law that looks three tokens back and never at padding."""
    return TABLE(tuple(token for token in context if token != PAD))


class Conditions:
    """The unconditional row is one null token behind padding, or a longer fixed text."""

    def __init__(self, bare=(NULL,)):
        self.longest = len(bare)
        self._bare = bare

    def rows(self, prompt, count, unconditional="own"):
        rows = [tuple(prompt), (0, *prompt[1:]), self._bare]
        rows = [rows[0], *rows[3 - count + 1 :]] if count > 1 else rows[:1]
        width = max(map(len, rows))
        padding = tuple(width - len(row) for row in rows)
        tokens = [(PAD,) * gap + row for gap, row in zip(padding, rows, strict=True)]
        return Rows(torch.tensor(tokens), padding)


def guided(guidance, bare=(NULL,), text_top_k=None, grid=GRID):
    model = GuidedModel(TableModel(table, VOCAB), Conditions(bare), grid, FIRST, CODES, VOCAB)
    return model.under(Law(guidance=guidance, text_top_k=text_top_k))


def expected(prompt, tokens, guidance, bare=(NULL,)):
    """The mixed law of the next code, written out."""
    scales = guidance.scales(GRID.rows * GRID.columns)
    scale = scales[sum(FIRST <= token < FIRST + CODES for token in tokens)]
    full, empty = table((*prompt, *tokens)), table((*bare, *tokens))
    if guidance.image_scale is not None:
        image = table((0, *prompt[1:], *tokens))
        return empty + guidance.image_scale * (image - empty) + scale * (full - image)
    return empty + scale * (full - empty)


PROMPT = (1, 0, 1)
TOKENS = (3, 5, ROW_END, 2, 4, ROW_END, END)
LAWS = [
    Guidance(1.0),
    Guidance(2.5),
    Guidance(3.0, "linear"),
    Guidance(3.0, "cosine"),
    Guidance(3.0, "constant", 1.2),
]


@pytest.mark.parametrize("guidance", LAWS, ids=repr)
@pytest.mark.parametrize("bare", [(NULL,), (NULL, 0, 1, 1, 0)], ids=["short", "long"])
@pytest.mark.parametrize("step", [1, 2, 7])
def test_rows_are_mixed_and_the_grid_is_kept(guidance, bare, step):
    model = guided(guidance, bare)
    cache = model.new_cache(1, 32)
    rows = [model.forward(torch.tensor([PROMPT]), cache, View(last=1))]
    for start in range(0, len(TOKENS) - 1, step):
        rows.append(model.forward(torch.tensor([TOKENS[start : start + step]]), cache))
    logits = torch.cat(rows, 1)[0, : GRID.length]
    assert cache.lengths == [len(PROMPT) + len(TOKENS) - (step != 7)]
    for place, forced in enumerate(GRID.forced):
        finite = logits[place].isfinite().nonzero().flatten().tolist()
        if forced == CODE:
            assert finite == list(range(FIRST, FIRST + CODES))
            want = expected(PROMPT, TOKENS[:place], guidance, bare)[FIRST : FIRST + CODES]
            torch.testing.assert_close(logits[place, FIRST : FIRST + CODES], want)
        else:
            assert finite == [forced]


@pytest.mark.parametrize("guidance", LAWS, ids=repr)
def test_places_follow_the_mask_and_not_the_slots(guidance):
    """A tree of two paths behind one committed code: each node's place is its depth's."""
    model = guided(guidance)
    cache = model.new_cache(1, 32)
    model.forward(torch.tensor([PROMPT]), cache, View(last=1))
    tree = torch.tensor([[3, 4, 5, ROW_END, ROW_END]])
    mask = TreeMask.from_parents((-1, -1, 0, 1))
    logits = model.forward(tree, cache, View(mask=mask))[0]
    for node, path in enumerate([(3,), (3, 4), (3, 5), (3, 4, ROW_END), (3, 5, ROW_END)]):
        place = len(path)
        if GRID.forced[place] == CODE:
            want = expected(PROMPT, path, guidance)[FIRST : FIRST + CODES]
            torch.testing.assert_close(logits[node, FIRST : FIRST + CODES], want)
        else:
            assert logits[node].argmax() == GRID.forced[place]
    cache.keep([len(PROMPT)], [[0, 2]])
    assert cache.lengths == [len(PROMPT) + 2]
    after = model.forward(torch.tensor([[ROW_END]]), cache)[0, 0]
    want = expected(PROMPT, (3, 5, ROW_END), guidance)[FIRST : FIRST + CODES]
    torch.testing.assert_close(after[FIRST : FIRST + CODES], want)


def test_a_first_forward_may_hold_generated_tokens_too():
    guidance = Guidance(2.0)
    whole = guided(guidance).forward(
        torch.tensor([[*PROMPT, 3, 4]]), guided(guidance).new_cache(1, 16), View(last=1)
    )
    model = guided(guidance)
    cache = model.new_cache(1, 16)
    model.forward(torch.tensor([PROMPT]), cache)
    torch.testing.assert_close(whole, model.forward(torch.tensor([[3, 4]]), cache, View(last=1)))


def test_free_text_comes_before_the_picture_under_its_own_cut():
    grid = Grid(rows=1, columns=2, text=2)
    model = guided(Guidance(2.0), text_top_k=2, grid=grid)
    cache = model.new_cache(1, 16)
    logits = model.forward(torch.tensor([PROMPT]), cache)[0, -1]
    finite = logits.isfinite().nonzero().flatten()
    plain = table(PROMPT).clone()
    plain[FIRST : FIRST + CODES] = -torch.inf
    assert sorted(finite.tolist()) == sorted(plain.topk(2).indices.tolist())
    after = model.forward(torch.tensor([[0, 1]]), cache)[0, -1]
    assert after.isfinite().nonzero().flatten().tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_sequence_obeys_the_grid_and_jacobi_agrees_with_plain_decoding(temperature):
    law = Law(temperature, guidance=Guidance(2.0), top_k=3)
    models = ModelPair("toy", TableModel(table, VOCAB))
    models.target = guided(None)
    models = models.under(law)
    for seed in range(10):
        request = Request(PROMPT, GRID.length, law, Streams(seed))
        plain = Autoregressive().generate(models, request, CpuClock()).tokens
        assert len(plain) == GRID.length
        assert all(f in (CODE, token) for token, f in zip(plain, GRID.forced, strict=True))
        assert Jacobi(4).generate(models, request, CpuClock()).tokens == plain


def test_guidance_is_part_of_the_laws_hash_and_text_laws_keep_theirs():
    assert Law().digest() == "bb71fc76" + Law().digest()[8:]
    digests = {Law(guidance=guidance).digest() for guidance in [None, *LAWS]}
    assert len(digests) == 1 + len(LAWS)
    assert Law(text_top_k=3).digest() != Law().digest()
    kinds = {
        Law(guidance=Guidance(3.0, unconditional=kind)).digest() for kind in get_args(Unconditional)
    }
    assert len(kinds) == len(get_args(Unconditional)) == 3
    # The hash that result files hold since before there was a choice.
    assert Law(top_k=2000, guidance=Guidance(3.0)).digest() == "cbf68dd6c4322656"


def test_grid_places_and_codes():
    assert GRID.length == 7
    assert GRID.forced == (-1, -1, ROW_END, -1, -1, ROW_END, END)
    assert [GRID.place(i) for i in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert GRID.index(1, 1) == 4
    assert GRID.codes(TOKENS) == [3, 5, 2, 4]
    assert GRID.codes(TOKENS[:4]) == [3, 5, 2]
