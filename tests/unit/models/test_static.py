"""Static forwards, replayed as graphs are, equal the lean decoder's own."""

from __future__ import annotations

import gc

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.decoding.tree import TreeMask
from specbench.models import static as static_module
from specbench.models.base import CAUSAL, LayerSkip, Taps, View
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from specbench.models.static import StaticDecoder
from specbench.models.static_cache import SLOT_STEP, tree_inputs
from tests.unit.models import tiny_checkpoints
from tests.unit.models.recorded import Recorder

CPU = torch.device("cpu")
TREE = (-1, -1, 0, 0, 1, 2, 4, 4)
TREES = {
    "tree": TREE,
    "chain": tuple(range(-1, 6)),
    "star": (-1,) * 9,
    "sixty-three": tuple((i - 1) // 2 for i in range(63)),
    "large": tuple((i - 1) // 3 for i in range(90)),
    "largest": tuple(i // 2 - 1 for i in range(256)),
}


@pytest.fixture(scope="module")
def lean_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    made = {}

    def load(name):
        if name not in made:
            path = tiny_checkpoints.write(folder, name)
            module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
            made[name] = LeanDecoder.of(module, name, CPU, torch.float64)
        return made[name]

    return load


class Both:
    """The same calls to a lean and to a static decoder, compared as they come."""

    def __init__(self, lean, capacity=512, rows=1, tolerance=1e-11):
        self.recorder = Recorder()
        self.static = StaticDecoder(lean, capture=self.recorder)
        self.models = (lean, self.static)
        self.caches = [model.new_cache(rows, capacity) for model in self.models]
        self.tolerance = tolerance
        self._generator = torch.Generator().manual_seed(3)

    def tokens(self, count):
        rows = len(self.caches[0].lengths)
        return torch.randint(0, tiny_checkpoints.VOCAB, (rows, count), generator=self._generator)

    def forward(self, tokens, view=CAUSAL):
        if isinstance(tokens, int):
            tokens = self.tokens(tokens)
        results = []
        for model, cache in zip(self.models, self.caches, strict=True):
            asked = Taps(view.taps.layers, view.taps.every) if view.taps else None
            logits = model.forward(tokens, cache, view._replace(taps=asked))
            results.append([logits, *(asked.states if asked else ())])
        assert self.caches[0].lengths == self.caches[1].lengths
        for expected, got in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, atol=self.tolerance, rtol=self.tolerance)
        return results[1][0]

    def each(self, call):
        for cache in self.caches:
            call(cache)

    def settle(self):
        self.static.settle()


def settled(lean, calls, **options):
    """Make the calls until they are captured, roll back to another length, and return both."""
    both = Both(lean, **options)
    both.forward(20, View(last=1))
    for start in (20, 17):
        for call in calls:
            call(both)
        both.each(lambda cache, start=start: cache.truncate([start] * len(cache.lengths)))
    both.settle()
    return both


def test_steps_are_replayed_at_every_length(lean_of):
    both = settled(lean_of("llama3"), [lambda b: b.forward(1), lambda b: b.forward(5)])
    assert both.recorder.replays == [0, 0], "two steps, captured and not yet replayed"
    for count in (1, 1, 5, 1, 5, 1):
        both.forward(count)
    both.each(lambda cache: cache.truncate([3]))
    both.forward(5)
    both.forward(1)
    assert both.recorder.replays == [5, 3]


@pytest.mark.parametrize("name", ["qwen3", "llama"])
@pytest.mark.parametrize("tree", list(TREES))
def test_trees_are_replayed_with_any_mask_of_their_sizes(lean_of, name, tree):
    parents = TREES[tree]
    count = len(parents) + 1
    other = TreeMask.from_parents((-1, 0, 1) + (2,) * (len(parents) - 3))
    masks = [TreeMask.from_parents(parents), other]

    def feed(both):
        base = both.caches[0].lengths[0]
        both.forward(count, View(mask=masks[0]))
        both.each(lambda cache: cache.keep([base], [[0, 1, count - 1]]))

    both = settled(lean_of(name), [feed])
    for mask in (masks[1], masks[0], masks[0], masks[1]):
        base = both.caches[0].lengths[0]
        both.forward(count, View(mask=mask))
        both.each(lambda cache, base=base: cache.keep([base], [[0, 2, 3]]))
        both.forward(1)
    assert sum(both.recorder.replays) >= 4


def test_a_tree_fed_level_by_level_sees_its_cached_ancestors(lean_of):
    """Masks of W > T slots, made anew every time, as a growing draft makes them."""
    levels = [(-1, -1, -1), (0, 0, 1, 2), (3, 4, 4, 5, 6)]

    def grow(both):
        parents = []
        for level in levels:
            first = len(parents)
            parents += level
            full = TreeMask.from_parents(tuple(parents))
            rows = full.ancestors[first + 1 :].clone()
            mask = TreeMask(full.offsets.clone(), rows)
            both.forward(len(level), View(mask=mask))

    def round_of(both):
        both.forward(1, View(last=1))
        base = both.caches[0].lengths[0] - 1
        grow(both)
        both.each(lambda cache: cache.keep([base], [[0, 1, 4, 9]]))

    both = settled(lean_of("llama3"), [round_of])
    for _ in range(3):
        round_of(both)
    assert len(both.recorder.replays) == 4 and min(both.recorder.replays) == 3


def test_last_taps_and_skips_are_steps_of_their_own(lean_of):
    skip = LayerSkip(frozenset({1}), frozenset({0, 2}))
    calls = [
        lambda b: b.forward(4, View(last=2)),
        lambda b: b.forward(4, View(taps=Taps((0, 2, -1)))),
        lambda b: b.forward(4, View(taps=Taps((1, -1)), last=1)),
        lambda b: b.forward(4, View(taps=Taps((-1, 1), every=True), last=3)),
        lambda b: skipping(b, 4, skip),
        lambda b: skipping(b, 1, LayerSkip(frozenset({0, 1, 2}), frozenset({0, 1, 2}))),
        lambda b: b.forward(81, View(mask=TreeMask.from_parents((-1,) * 80), taps=Taps((0,)))),
        lambda b: b.forward(
            81, View(mask=TreeMask.from_parents((-1,) * 80), taps=Taps((0, -1)), last=2)
        ),
    ]

    def skipping(both, count, left_out):
        """What a skipped layer has not written is not to be looked at."""
        both.forward(count, View(skip=left_out))
        both.each(lambda cache: cache.truncate([cache.lengths[0] - count]))

    both = settled(lean_of("qwen3"), calls)
    for call in calls:
        call(both)
    assert both.recorder.replays == [1] * len(calls)


def test_logits_and_states_belong_to_the_caller(lean_of):
    both = settled(lean_of("llama3"), [lambda b: b.forward(1, View(taps=Taps((1,))))])
    model, cache = both.static, both.caches[1]
    kept = []
    for token in (3, 4):
        taps = Taps((1,))
        logits = model.forward(torch.tensor([[token]]), cache, View(taps=taps))
        kept.append((logits, logits.clone(), taps.states[0], taps.states[0].clone()))
    for logits, logits_then, states, states_then in kept:
        assert torch.equal(logits, logits_then) and torch.equal(states, states_then)
    assert both.recorder.replays == [2]


def test_rows_of_different_lengths_and_padding(lean_of):
    both = Both(lean_of("llama3"), rows=3)
    both.each(lambda cache: setattr(cache, "padding", (0, 4, 7)))
    both.forward(12, View(last=1))
    mask = TreeMask.from_parents(TREE)
    for _ in range(3):
        both.forward(1)
        both.forward(9, View(mask=mask))
        both.each(lambda cache: cache.keep([13, 13, 13], [[0, 2], [0], [0, 1, 3]]))
        both.forward(3)
        both.each(lambda cache: cache.truncate([12, 12, 12]))
        both.settle()
    assert both.recorder.replays == [1, 1, 1]


def test_a_prompt_an_overfull_cache_and_a_passed_window_run_as_they_come(lean_of, monkeypatch):
    both = Both(lean_of("mistral_window"), capacity=SLOT_STEP)
    used = both.caches[1].storage.uses
    both.forward(3, View(last=1))
    assert not used, "a prompt"
    both.forward(4)
    assert sum(use.count for use in used.values()) == 1
    both.forward(5)
    both.forward(1)
    assert sum(use.count for use in used.values()) == 1, "the window is passed"

    monkeypatch.setattr(static_module, "MOST_TOKENS", 50)
    both = Both(lean_of("llama3"), capacity=SLOT_STEP)
    used = both.caches[1].storage.uses
    both.forward(40)
    both.forward(51)
    assert not used, "more than a step"
    monkeypatch.undo()
    both.each(lambda cache: cache.truncate([SLOT_STEP - 70]))
    both.forward(70, View(mask=TreeMask.from_parents((-1,) * 69)))
    assert not used, "there is no room for the padding of the tree"


def test_nothing_is_captured_before_it_is_used_twice_or_within_a_forward(lean_of):
    both = Both(lean_of("llama3"))
    both.forward(9)
    both.forward(2)
    both.settle()
    assert both.recorder.replays == []
    both.forward(2)
    assert both.recorder.replays == []
    both.settle()
    assert both.recorder.replays == [0]


def test_settling_amid_a_sequence_disturbs_nothing(lean_of):
    both = Both(lean_of("qwen3"))
    both.forward(30)
    both.forward(2)
    both.forward(2)
    both.settle()
    both.forward(2)
    both.forward(1)
    both.forward(1)
    both.settle()
    both.forward(2)
    both.forward(1)
    assert both.recorder.replays == [2, 1]


def test_a_full_cache_is_settled_without_a_trace(lean_of):
    """Pictures end where the context does: there is no slot behind them to rehearse in."""
    both = Both(lean_of("qwen3"), capacity=256)
    both.forward(60)
    for count in (40, 40, 40, 40, 35):
        both.forward(count)
    before = both.caches[1].store[..., :255, :].clone()
    both.settle()
    assert both.recorder.replays == [0]
    assert torch.equal(both.caches[1].store[..., :255, :], before)
    both.forward(1)
    both.each(lambda cache: cache.truncate([7]))
    both.forward(40)
    assert both.recorder.replays == [1]


def test_memory_of_a_dead_cache_is_used_again_with_its_graphs(lean_of):
    both = settled(lean_of("llama3"), [lambda b: b.forward(1)])
    model = both.static
    address = both.caches[1].store.data_ptr()
    second = model.new_cache(1, 512)
    assert second.store.data_ptr() != address, "two live caches share no memory"
    both.caches[1] = None
    gc.collect()
    again = model.new_cache(1, 500)
    assert again.store.data_ptr() == address
    assert again.lengths == [0] and again.padding is None
    both.caches = [both.models[0].new_cache(1, 512), again]
    both.forward(7)
    both.forward(1)
    assert both.recorder.replays == [1]
    both.caches[1] = None
    del again
    gc.collect()
    assert model.new_cache(1, 1024).store.data_ptr() != address, "too small"
    assert model.new_cache(2, 512).store.data_ptr() != address, "another number of rows"


def test_a_few_caches_are_captured_and_further_ones_run_as_they_come(lean_of, monkeypatch):
    monkeypatch.setattr(static_module, "_MOST_SETTLED", 2)
    recorder = Recorder()
    model = StaticDecoder(lean_of("llama"), capture=recorder)
    caches = [model.new_cache(1, 64) for _ in range(3)]
    for cache in caches:
        for count in (5, 1, 1):
            model.forward(torch.arange(count)[None], cache)
        model.settle()
    assert len(recorder.replays) == 2
    outputs = [model.forward(torch.tensor([[9]]), cache) for cache in caches]
    assert recorder.replays == [1, 1]
    assert torch.equal(outputs[0], outputs[2]), "a replay changes no bit"


def test_a_pair_grows_its_caches_before_a_generation_is_timed(lean_of):
    recorder = Recorder()
    model = StaticDecoder(lean_of("llama"), capture=recorder)
    models = ModelPair("pair", model)
    cache = models.target_cache(100)
    assert cache.capacity == model.least_capacity
    for count in (5, 1, 1):
        model.forward(torch.arange(count)[None], cache)
    models.settle(100)
    assert models.target_cache(100) is cache and recorder.replays == [0]
    models.settle(model.least_capacity)
    larger = models.target_cache(model.least_capacity + 300)
    assert larger.capacity == 2 * model.least_capacity
    for count in (5, 1):
        model.forward(torch.arange(count)[None], larger)
    assert recorder.replays == [0, 1], "captured for the new cache before it was used"


def test_a_pair_without_static_models_keeps_small_caches(lean_of):
    models = ModelPair("pair", lean_of("llama"))
    models.target_cache(10)
    models.settle(5000)
    assert models.target_cache(10).capacity == 256


@pytest.mark.parametrize("mask_device", ["cpu", "meta"])
def test_tree_inputs_are_padded(mask_device):
    mask = TreeMask(torch.tensor([0, 1, 1, 2]), torch.tensor([[1, 0, 1, 0], [1, 1, 0, 1]]).bool())
    if mask_device == "meta":
        mask = TreeMask(mask.offsets.to("meta"), mask.ancestors.to("meta"))
    offsets, ancestors = tree_inputs(mask, 3, 8, torch.device(mask_device))
    assert offsets.shape == (3,) and ancestors.shape == (3, 8)
    if mask_device == "cpu":
        assert offsets.tolist() == [-1, 0, 0]
        assert ancestors.int().tolist() == [
            [1, 1, 1, 1, 0, 1, 0, 0],
            [1, 1, 1, 1, 1, 0, 1, 0],
            [0, 0, 0, 0, 0, 0, 0, 1],
        ]
