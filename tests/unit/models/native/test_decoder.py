"""The native step computes what the eager lean decoder does, and each token as if it were alone."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.tree import TreeMask
from specbench.models.base import CAUSAL, LayerSkip, Taps, View
from specbench.models.native import decoder as native_module
from specbench.models.native.decoder import NativeDecoder
from specbench.models.native.library import Unavailable
from tests.unit.models.native.small import CPU, SHAPES, VOCABULARY, lean

TREE = TreeMask.from_parents((-1, -1, 0, 0, 1, 4))
OTHER = TreeMask.from_parents((-1, 0, 1, 2, -1, -1))
DTYPES = (torch.float32, torch.bfloat16)
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 0.15}
"""Of numbers around one. In bfloat16 the eager path rounds states that the step keeps whole."""

VIEWS = {
    "all": (CAUSAL, 5),
    "one": (CAUSAL, 1),
    "blocks of tokens": (CAUSAL, 21),
    "last": (View(last=2), 5),
    "tree": (View(TREE), 7),
    "tree, last": (View(TREE, last=3), 7),
    "taps": (View(taps=Taps((0, 2, -1))), 5),
    "taps of the last": (View(last=2, taps=Taps((1, -1))), 5),
    "taps of all, logits of the last": (View(last=1, taps=Taps((-1, 0), every=True)), 5),
    "no logits": (View(taps=Taps((1,)), logits=False), 5),
    "skip": (View(skip=LayerSkip(frozenset({0}), frozenset({1, 2}))), 5),
    "first blocks": (View(last_layer=1), 5),
    "first blocks, taps": (View(last_layer=1, taps=Taps((1, -1))), 5),
}


def tokens_of(rows, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (rows, count), generator=generator)


def asked(model, inputs, cache, view):
    """Return the logits and states of a forward, with taps of its own."""
    taps = Taps(view.taps.layers, view.taps.every) if view.taps else None
    logits = model.forward(inputs, cache, view._replace(taps=taps))
    return [logits, *(taps.states if taps else ())]


class Both:
    """A lean decoder and the native one of the same weights, and a cache of each."""

    def __init__(self, name, dtype=torch.float32, rows=1, capacity=64):
        eager = lean(name, dtype)
        self.models = (eager, NativeDecoder(eager))
        self.native = self.models[1]
        self.caches = [model.new_cache(rows, capacity) for model in self.models]
        self.tolerance = TOLERANCE[dtype]

    def forward(self, inputs, view=CAUSAL):
        pairs = zip(self.models, self.caches, strict=True)
        expected, got = (asked(model, inputs, cache, view) for model, cache in pairs)
        assert self.caches[0].lengths == self.caches[1].lengths
        for left, right in zip(expected, got, strict=True):
            assert right.dtype == left.dtype
            torch.testing.assert_close(right, left, atol=self.tolerance, rtol=self.tolerance)
        return got[0]

    def truncate(self, *lengths):
        for cache in self.caches:
            cache.truncate(lengths)


@pytest.fixture
def no_fallback(monkeypatch, compiled):
    """Let a test fail where the eager path computes instead of the step."""

    def refuse(self, inputs, cache, view=CAUSAL):
        pytest.fail("the eager path ran")

    def watch(both):
        monkeypatch.setattr(both.native.body, "forward", refuse.__get__(both.native.body))
        return both

    return watch


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_view_of_every_shape_is_the_eager_one(no_fallback, name, view, dtype):
    both = no_fallback(Both(name, dtype))
    view, count = VIEWS[view]
    both.forward(tokens_of(1, 9), View(last=1))
    for start in (9, 17, 13):
        both.forward(tokens_of(1, count, start), view)
        both.truncate(min(start + 1, *both.caches[0].lengths))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", [View(first_layer=1), View(TREE, first_layer=2)])
def test_features_enter_at_any_block(no_fallback, view, dtype):
    both = no_fallback(Both("grouped", dtype))
    both.forward(tokens_of(1, 9), View(last=1))
    features = torch.randn(1, 7, 90, generator=torch.Generator().manual_seed(2)).to(dtype)
    both.forward(features, view)
    both.truncate(10)
    both.forward(features, view._replace(first_layer=0))


@pytest.mark.parametrize("lengths", [(9, 9), (9, 4)], ids=["even", "ragged"])
@pytest.mark.parametrize("name", ["grouped", "window"])
def test_rows_have_lengths_and_trees_of_their_own(no_fallback, name, lengths):
    both = no_fallback(Both(name, rows=2))
    both.forward(tokens_of(2, 9), View(last=1))
    each = TreeMask(
        torch.stack([TREE.offsets, OTHER.offsets]), torch.stack([TREE.ancestors, OTHER.ancestors])
    )
    for view in (CAUSAL, View(TREE), View(each)):
        both.truncate(*lengths)
        both.forward(tokens_of(2, 7), view)


def test_padding_is_seen_by_nobody(compiled):
    both = Both("grouped", rows=2)
    for cache in both.caches:
        cache.padding = (0, 5)
    both.forward(tokens_of(2, 9), View(last=1))
    for view, count in ((CAUSAL, 1), (CAUSAL, 3), (View(TREE), 7)):
        both.forward(tokens_of(2, count), view)


def test_a_tree_grows_over_several_forwards(no_fallback):
    """New tokens see cached tree tokens through a mask that is wider than they are many."""
    both = no_fallback(Both("window"))
    both.forward(tokens_of(1, 20), View(last=1))
    both.forward(tokens_of(1, 5, 2), View(TreeMask.from_parents((-1, -1, 0, 0))))
    whole = TreeMask.from_parents((-1, -1, 0, 0, 1, 4))
    both.forward(tokens_of(1, 2, 3), View(TreeMask(whole.offsets, whole.ancestors[5:])))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_each_token_is_computed_as_if_it_were_alone(no_fallback, name, dtype):
    """Prompt, draft and tree: every token's logits are those of feeding one after the other."""
    model = no_fallback(Both(name, dtype)).native
    text = tokens_of(1, 30)
    single, several = model.new_cache(1, 64), model.new_cache(1, 64)
    alone = torch.cat([model.forward(each, single) for each in text.split(1, 1)], 1)
    parts = [model.forward(each, several) for each in text.split([13, 1, 9, 5, 2], 1)]
    assert torch.equal(torch.cat(parts, 1), alone)
    assert torch.equal(several.store, single.store)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_a_branch_of_a_tree_is_computed_as_if_it_were_alone(no_fallback, name, dtype):
    model = no_fallback(Both(name, dtype)).native
    prompt, nodes = tokens_of(1, 21), tokens_of(1, 7, 4)
    cache = model.new_cache(1, 64)
    model.forward(prompt, cache)
    logits = model.forward(nodes, cache, View(TREE))
    branch = [0, 2, 5, 6]
    cache.keep([21], [branch])
    after = model.forward(tokens_of(1, 1, 5), cache)
    single = model.new_cache(1, 64)
    model.forward(prompt, single)
    for node in branch:
        alone = model.forward(nodes[:, node : node + 1], single)
        assert torch.equal(alone[0, 0], logits[0, node])
    assert torch.equal(model.forward(tokens_of(1, 1, 5), single), after)


def test_more_threads_than_one_compute_the_same(compiled):
    both = Both("grouped")
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            both.truncate(0)
            both.forward(tokens_of(1, 12))
            found.append(both.forward(tokens_of(1, 7)))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


def test_threads_of_its_own_serve_where_there_is_no_openmp(compiled):
    both = Both("grouped")
    expected = both.forward(tokens_of(1, 12))
    before = torch.get_num_threads()
    compiled.use_threads(None, None, None)
    torch.set_num_threads(3)
    try:
        for _ in range(20):
            both.truncate(0)
            assert torch.equal(both.forward(tokens_of(1, 12)), expected)
    finally:
        torch.set_num_threads(before)
        native_module.library.share_threads(compiled)


def test_a_long_prompt_is_read_by_the_eager_path(compiled, monkeypatch):
    both = Both("grouped", capacity=CONTEXT_OF_TEST)
    ran = []
    forward = type(both.native.body).forward
    monkeypatch.setattr(
        both.native.body, "forward", lambda *args: ran.append(1) or forward(both.native.body, *args)
    )
    both.forward(tokens_of(1, native_module.MOST_ROWS + 1), View(last=1))
    assert ran == [1]
    both.forward(tokens_of(1, 5))
    assert ran == [1]


CONTEXT_OF_TEST = 600


def test_a_text_past_the_context_is_refused_as_the_eager_path_refuses_it(compiled):
    both = Both("grouped", capacity=800)
    both.forward(tokens_of(1, 500), View(last=1))
    for model, cache in zip(both.models, both.caches, strict=True):
        model.forward(tokens_of(1, 200), cache, View(last=1))
        with pytest.raises((IndexError, RuntimeError)):
            model.forward(tokens_of(1, 3), cache)


def test_what_is_no_token_and_what_is_another_dtype_is_refused(compiled):
    native = Both("grouped").native
    for token in (-1, VOCABULARY):
        cache = native.new_cache(1, 8)
        with pytest.raises(IndexError):
            native.forward(torch.tensor([[1, token]]), cache)
        assert cache.lengths == [0]
    with pytest.raises((AssertionError, RuntimeError)):
        native.forward(torch.ones(1, 2, 90, dtype=torch.bfloat16), native.new_cache(1, 8))


def test_what_the_step_does_not_compute_is_refused_by_name(compiled):
    with pytest.raises(Unavailable, match="float64"):
        NativeDecoder(lean("grouped", torch.float64))
    with pytest.raises(Unavailable, match="heads of 6 channels"):
        SHAPES["narrow"] = dict(heads=4, groups=4, width=6, channels=24, inner=32)
        try:
            NativeDecoder(lean("narrow"))
        finally:
            del SHAPES["narrow"]


def test_heads_and_sizes_are_the_lean_ones(compiled):
    for name in ("grouped", "own head"):
        both = Both(name)
        states = torch.randn(1, 4, both.models[0].embedding.shape[1])
        for normed in (True, False):
            expected, got = (model.head(states, normed=normed) for model in both.models)
            torch.testing.assert_close(got, expected)
        assert both.native.sizes == both.models[0].sizes
        tokens = tokens_of(1, 3)
        assert torch.equal(both.native.embed(tokens), both.models[0].embed(tokens))
        assert both.native.device == CPU


def test_weights_are_handed_over_projection_by_projection(compiled):
    eager = lean("biases")
    expected = eager.forward(tokens_of(1, 5), eager.new_cache(1, 8))
    native = NativeDecoder(eager, release=True)
    assert all(
        ours.qkv is theirs.qkv
        for ours, theirs in zip(native.body.weights.layers, eager.weights.layers, strict=True)
    )
    torch.testing.assert_close(native.forward(tokens_of(1, 5), native.new_cache(1, 8)), expected)
    torch.testing.assert_close(eager.forward(tokens_of(1, 5), eager.new_cache(1, 8)), expected)
