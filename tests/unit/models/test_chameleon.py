"""The Chameleon family computes what its publishers define, row by row, from their layouts."""

from __future__ import annotations

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.loops.jacobi import Jacobi
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.decoding.request import Request
from specbench.decoding.tree import TreeMask
from specbench.errors import ModelError
from specbench.law import Guidance, Law
from specbench.models import chameleon, checkpoint
from specbench.models.base import View
from specbench.models.chameleon import load
from specbench.rng import Streams
from tests.unit.models.by_hand import check_laws
from tests.unit.models.chameleon_checkpoints import (
    BEGIN,
    CAPTION,
    CODES,
    FIRST,
    GROUPS,
    HEADS,
    LAYOUT,
    ROW_END,
    SIZE,
    TOKENS,
    TURN,
    close,
    entry,
    logits_of,
    tensors,
    vocabulary,
    write,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("chameleon"))


@pytest.fixture(scope="module")
def pair(folder, tmp_path_factory):
    draft = write(tmp_path_factory.mktemp("draft"), seed=1, layers=1)
    return load(entry(folder, draft=str(draft)), **LAYOUT)


@pytest.fixture(scope="module")
def reference():
    return tensors()


GUIDANCES = [Guidance(1.0), Guidance(2.5), Guidance(3.0, "linear"), Guidance(3.0, "constant", 1.2)]


def mixed(state, pair, guidance, tokens, bare=None, groups=GROUPS):
    """The guided logits behind each of `tokens`, from separate forwards without padding."""
    bare = bare or LAYOUT["unconditional"]
    prompts = pair.image.encode(CAPTION), LAYOUT["image_conditional"], bare
    full, image, bare = (
        logits_of(state, [*row, *tokens], groups)[len(row) - 1 :] for row in prompts
    )
    codes = [index for index, token in enumerate(pair.image.grid.forced) if token < 0]
    scales = torch.ones(len(tokens) + 1, 1, dtype=torch.float64)
    for place, scale in zip(codes, guidance.scales(len(codes)), strict=True):
        scales[place] = scale
    if guidance.image_scale is not None:
        return bare + guidance.image_scale * (image - bare) + scales * (full - image)
    return bare + scales * (full - bare)


def check(pair, got, want, first=0):
    for index, logits in enumerate(got):
        forced = pair.image.grid.forced[first + index]
        finite = logits.isfinite().nonzero().flatten().tolist()
        if forced >= 0:
            assert finite == [forced]
        else:
            assert finite == list(range(FIRST, FIRST + CODES))
            codes = slice(FIRST, FIRST + CODES)
            close(logits[codes], want[first + index, codes])


@pytest.mark.parametrize("guidance", GUIDANCES, ids=repr)
@pytest.mark.parametrize("step", [1, 4, 16])
def test_guided_steps_and_windows_equal_separate_full_forwards(pair, reference, guidance, step):
    pair = pair.under(Law(guidance=guidance))
    prompt = pair.image.encode(CAPTION)
    cache = pair.target.new_cache(1, 64)
    got = [pair.target.forward(torch.tensor([prompt]), cache, View(last=1))]
    for start in range(0, len(TOKENS), step):
        window = torch.tensor([TOKENS[start : start + step]])
        got.append(pair.target.forward(window, cache))
    check(pair, torch.cat(got, 1)[0], mixed(reference, pair, guidance, TOKENS))


@pytest.mark.parametrize("guidance", GUIDANCES, ids=repr)
def test_rolled_back_windows_and_trees_equal_full_forwards(pair, reference, guidance):
    pair = pair.under(Law(guidance=guidance))
    prompt = pair.image.encode(CAPTION)
    cache = pair.target.new_cache(1, 64)
    pair.target.forward(torch.tensor([prompt]), cache)
    pair.target.forward(torch.tensor([[7, 7, 7, 7, ROW_END, 7]]), cache)
    cache.truncate([len(prompt) + 2])
    pair.target.forward(torch.tensor([[8, 8]]), cache)
    cache.truncate([len(prompt)])
    got = pair.target.forward(torch.tensor([TOKENS[:6]]), cache)[0]
    want = mixed(reference, pair, guidance, TOKENS)
    check(pair, got, want, first=1)
    mask = TreeMask.from_parents((-1, -1, 0, 1))
    tree = [TOKENS[6], 21, TOKENS[7], 22, TOKENS[8]]
    nodes = pair.target.forward(torch.tensor([tree]), cache, View(mask=mask))[0]
    check(pair, nodes[[0, 2, 4]], want, first=7)
    cache.keep([len(prompt) + 6], [[0, 2, 4]])
    check(pair, pair.target.forward(torch.tensor([TOKENS[9:12]]), cache)[0], want, first=10)


CODE_IDS = slice(FIRST, FIRST + CODES)


def laws_of(folder, rows, groups=GROUPS):
    """Our guided logits at the places of codes, and those of the definition, [T, K]."""
    write(folder, groups=groups, rows=rows)
    pair = load(entry(folder), **LAYOUT)
    guidance = Guidance(3.0)
    pair = pair.under(Law(guidance=guidance))
    prompt = pair.image.encode(CAPTION)
    got = pair.target.forward(torch.tensor([[*prompt, *TOKENS]]), pair.target.new_cache(1, 64))[0]
    want = mixed(tensors(groups=groups, rows=rows), pair, guidance, TOKENS, groups=groups)
    places = [place for place, token in enumerate(pair.image.grid.forced[:-1]) if token < 0]
    return got[len(prompt) - 1 :][places, CODE_IDS], want[places, CODE_IDS]


@pytest.mark.parametrize(
    ("rows", "groups"),
    [((1, 1), 4), ((2, 2), 4), ((4, 4), 4), ((1, 1), 2), ((2, 2), 2), ((4, 2), 2)],
)
def test_norms_of_shards_and_of_heads_give_the_law_of_the_release(tmp_path, rows, groups):
    """Lumina-mGPT keeps one row, larger Chameleons one for each shard, Anole one for each head."""
    check_laws(*laws_of(tmp_path, rows, groups), top_k=8)


def test_shards_that_take_turns_would_be_noticed(tmp_path, monkeypatch):
    """Mutation: two shards spread over heads 0, 2 and 1, 3 in place of 0, 1 and 2, 3."""

    def turns(weight, count, dim):
        return weight.repeat(count, 1)

    monkeypatch.setattr(torch.Tensor, "repeat_interleave", turns)
    got, want = laws_of(tmp_path, (2, 2))
    with pytest.raises(AssertionError):
        check_laws(got, want, top_k=8)


def test_the_header_tells_the_rows_and_not_the_configuration(tmp_path):
    """`model_parallel_size` is 1 where a checkpoint has a row for every head, and elsewhere."""
    for number, rows in enumerate(((1, 1), (2, 2), (HEADS, HEADS))):
        folder = write(tmp_path / str(number), rows=rows, model_parallel_size=1)
        settings = chameleon.Chameleon().read_settings(files_of(folder))
        assert chameleon.norm_rows(files_of(folder), settings) == dict(
            zip(("q_norm", "k_norm"), rows, strict=True)
        )


def test_rows_that_do_not_divide_the_heads_are_refused(tmp_path):
    write(tmp_path, rows=(3, 3))
    with pytest.raises(ModelError, match="q_norm has 3 rows, which do not divide its 4 heads"):
        load(entry(tmp_path), **LAYOUT)


def files_of(folder):
    return checkpoint.find(str(folder), None)


def test_a_wrong_unconditional_row_is_noticed(pair, reference, monkeypatch):
    """Mutation: a begin-of-text token too many shifts what guidance compares with."""
    monkeypatch.setitem(LAYOUT, "unconditional", [0, BEGIN, SIZE, SIZE])
    guidance = Guidance(2.5)
    pair = pair.under(Law(guidance=guidance))
    prompt = torch.tensor([pair.image.encode(CAPTION)])
    got = pair.target.forward(prompt, pair.target.new_cache(1, 64), View(last=1))[0, 0, FIRST]
    assert (got - mixed(reference, pair, guidance, TOKENS)[0, FIRST]).abs() > 1e-2


@pytest.mark.parametrize("kind", ["last_token", "padded"])
def test_the_unconditional_rows_of_releases_give_their_guided_law(folder, reference, kind):
    """SJD, GSD and SCD keep the prompt's last token; ZipAR pads the caption (pad token 1)."""
    pair = load(entry(folder), **LAYOUT, padding=1)
    prompt = pair.image.encode(CAPTION)
    before = prompt[: -len(LAYOUT["unconditional"])]
    assert len(before) > 3 and before[-1] == TURN
    bare = [TURN] if kind == "last_token" else [before[0]] + [1] * (len(before) - 1)
    bare += [BEGIN, SIZE, SIZE]
    pair = pair.under(Law(guidance=Guidance(2.5, unconditional=kind)))
    cache = pair.target.new_cache(1, 64)
    got = [pair.target.forward(torch.tensor([prompt]), cache, View(last=1))]
    got.append(pair.target.forward(torch.tensor([TOKENS[:3]]), cache))
    want = mixed(reference, pair, Guidance(2.5), TOKENS, bare)
    check(pair, torch.cat(got, 1)[0], want)
    assert (want - mixed(reference, pair, Guidance(2.5), TOKENS))[0].abs().max() > 1e-3


def test_a_row_that_the_entry_does_not_state_is_refused(folder):
    pair = load(entry(folder), **LAYOUT)
    prompt = torch.tensor([pair.image.encode(CAPTION)])
    pair = pair.under(Law(guidance=Guidance(2.5, unconditional="padded")))
    with pytest.raises(ModelError, match="padded"):
        pair.target.forward(prompt, pair.target.new_cache(1, 64), View(last=1))


def test_three_rows_draw_what_two_draw_where_the_prompt_has_no_picture(pair, folder):
    """Anole's rows: without a picture in the prompt the middle one is the last one."""
    anole = load(entry(folder), **{**LAYOUT, "image_conditional": LAYOUT["unconditional"]})
    prompt = torch.tensor([anole.image.encode(CAPTION)])
    got = []
    for guidance in (Guidance(3.0), Guidance(3.0, "constant", 1.2)):
        anole = anole.under(Law(guidance=guidance))
        cache = anole.target.new_cache(1, 64)
        got.append(anole.target.forward(prompt, cache, View(last=1))[0, 0, FIRST : FIRST + CODES])
    torch.testing.assert_close(*got)


def oracles(window):
    """SJD and MC-SJD that accept what plain decoding would draw."""
    return [
        SpeculativeJacobi(window, coupling, acceptance="oracle")
        for coupling in ("fresh", "maximal", "gumbel")
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_sample_obeys_the_grid_and_windows_emit_the_tokens_of_plain_decoding(
    pair, temperature
):
    law = Law(temperature, top_k=8, guidance=Guidance(2.0))
    pair = pair.under(law)
    prompt = pair.image.encode(CAPTION)
    grid = pair.image.grid
    seen = set()
    for seed in range(4):
        request = Request(prompt, grid.length, law, Streams(seed))
        plain = Autoregressive().generate(pair, request, CpuClock()).tokens
        assert len(plain) == grid.length
        for token, forced in zip(plain, grid.forced, strict=True):
            assert token == forced if forced >= 0 else FIRST <= token < FIRST + CODES
        for windowed in (Jacobi(window=6), *oracles(6)):
            assert windowed.generate(pair, request, CpuClock()).tokens == plain
        seen.add(tuple(plain))
    assert len(seen) == (1 if temperature == 0 else 4)


def test_the_conditional_row_is_as_published(pair):
    names = vocabulary()
    words = [names[word] for word in ("a", *CAPTION.split())]
    assert pair.image.encode(CAPTION) == [0, *words, TURN, BEGIN, SIZE, SIZE]
    with pytest.raises(ModelError, match="does not know"):
        pair.image.encode("a green circle")
    with pytest.raises(ModelError, match="piece of a picture"):
        pair.image.encode("red " + next(name for name in names if name.startswith("IMGIMG")))


def test_a_small_model_runs_in_the_dtype_of_small_models(folder):
    pair = load(entry(folder, dtype="auto"), **LAYOUT)
    assert pair.target.dtype == torch.float32
    assert pair.draft is None
    assert pair.provenance["target"]["engine"] == "lean"
