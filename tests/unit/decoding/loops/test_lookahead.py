"""Lookahead decoding: the fused mask, the window, the pool, and the walk through the guesses."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.choices import Choices
from specbench.decoding.loops import lookahead as module
from specbench.decoding.loops.lookahead import Layout, Lookahead, follow
from specbench.decoding.loops.window import Pool, Window
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.base import View
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, count_of, generate, table_pair
from tests.unit.models import tiny_checkpoints

GREEDY = Law(temperature=0)
LAWS = [
    GREEDY,
    Law(temperature=0, repetition_penalty=1.6),
    Law(temperature=0.5),
    Law(temperature=0.4, top_k=3, repetition_penalty=1.2),
]
SHAPES = [(3, 1, 1), (3, 2, 4), (4, 5, 2), (5, 7, 7)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lookahead")

    def load(name):
        path = tiny_checkpoints.write(folder, name)
        weights = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        if name == "gpt2":
            return ModelPair(name, CausalLM(weights, name))
        model = LeanDecoder.of(weights, name, torch.device("cpu"), torch.float64)
        return ModelPair(name, model)

    return {name: load(name) for name in ("qwen3", "mistral_window", "gpt2")}


@pytest.mark.parametrize(
    "options",
    [{}, {"pool_from_prompt": True}, {"shift_accepted": True}, {"released": True}],
    ids=str,
)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("law", LAWS)
def test_tokens_are_plain_decodings(law, shape, options):
    models = table_pair(vocab=5, sharpness=2.0)
    expected = generate(Autoregressive(), models, law, (0, 1, 3), 50)
    got = generate(Lookahead(*shape, **options), models, law, (0, 1, 3), 50)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds), "no guess was ever right"


@pytest.mark.parametrize("name", ["qwen3", "mistral_window", "gpt2"])
@pytest.mark.parametrize("law", [GREEDY, Law(temperature=0.3)])
def test_tokens_are_plain_decodings_on_checkpoints(checkpoints, name, law):
    models = checkpoints[name]
    prompt = (3, 5, 9) * 4
    expected = generate(Autoregressive(), models, law, prompt, 60)
    got = generate(Lookahead(4, 6, 5, pool_from_prompt=True), models, law, prompt, 60)
    assert got.tokens == expected.tokens


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_the_models_context_is_enough(checkpoints, name):
    """Neither the window nor a guess may stand behind the last position of the model."""
    models = checkpoints[name]
    context = models.context
    for prompt_length in (context - 30, context - 8, context - 1):
        prompt = tuple((7 * i) % 90 for i in range(prompt_length))
        count = context - prompt_length
        expected = generate(Autoregressive(), models, GREEDY, prompt, count)
        got = generate(Lookahead(5, 7, 7, True), models, GREEDY, prompt, count)
        assert got.tokens == expected.tokens


def successor_table(period, vocab):
    """A deterministic law: 0, 1, ..., period - 1, 0, ... by the token before."""

    def table(context):
        logits = torch.zeros(vocab, dtype=torch.float64)
        logits[(context[-1] + 1) % period] = 50.0
        return logits

    return table


def test_a_cyclic_target_gives_level_tokens_a_round_after_warm_up():
    for period in (3, 5, 7):
        models = ModelPair("cycle", TableModel(successor_table(period, 9), 9))
        for level in (3, 5, 6):
            rounds = generate(Lookahead(level, 7, 7), models, GREEDY, (8,), 150).rounds
            emitted = [r.count.emitted for r in rounds]
            settled = emitted[level + period : -1]
            assert settled == [level] * len(settled) and len(settled) > 10, (period, level)


def test_the_released_code_gives_a_token_less_for_a_wholly_right_guess():
    models = ModelPair("cycle", TableModel(successor_table(5, 9), 9))
    for level in (3, 5, 6):
        decoder = Lookahead(level, 7, 7, released=True)
        rounds = generate(decoder, models, GREEDY, (8,), 150).rounds
        emitted = [r.count.emitted for r in rounds][level + 5 : -1]
        assert emitted == [level - 1] * len(emitted) and len(emitted) > 10
        accepted = [r.count.accepted for r in rounds][level + 5 : -1]
        assert accepted == [level - 2] * len(accepted)


@pytest.mark.parametrize("law", [GREEDY, Law(0.7)], ids=Law.describe)
def test_the_released_code_keeps_stop_tokens_in_the_window_but_when_sampling(monkeypatch, law):
    """The window's tokens are checked, and not the rule that replaced them."""
    models = ModelPair("cycle", TableModel(successor_table(5, 9), 9))
    models.stop_ids = frozenset({1})
    found = {"filling": [], "full": []}
    advance = Window.advance

    def noting(self, predicted, accepted, stop_ids, fresh):
        state = "full" if self.full else "filling"
        advance(self, predicted, accepted, stop_ids, fresh)
        row = self.rows[-1]
        pairs = zip(row, predicted[-len(row) :], strict=True)
        found[state] += [own == token for own, token in pairs if token == 1]

    monkeypatch.setattr(Window, "advance", noting)
    for released, filling, full in ((False, False, False), (True, True, law.greedy)):
        found["filling"], found["full"] = [], []
        generate(Lookahead(6, 9, 3, released=released), models, law, (0, 2, 3), 60)
        assert found["filling"] and found["full"]
        assert all(found["filling"]) == filling
        assert all(found["full"]) == full


@pytest.mark.parametrize("prompt", [(0,), (1, 0, 1)])
@pytest.mark.parametrize("law", [Law(), Law(temperature=0.6, top_p=0.8, repetition_penalty=1.3)])
def test_law_equals_the_targets(law, prompt):
    models = table_pair(vocab=2, order=2)
    decoder = Lookahead(3, 2, 2, pool_from_prompt=True)
    got = output_law(decoder, models, law, prompt, 4)
    assert distance(got, true_law(models, law, prompt, 4)) < 1e-12


def test_a_guess_that_nobody_verified_would_be_noticed(monkeypatch):
    models = table_pair(vocab=2, order=2)

    def trusting(guesses, drawn):
        if not guesses:
            return drawn[:1], 0
        return [*guesses[0], drawn[len(guesses[0])]], 0

    monkeypatch.setattr(module, "follow", trusting)
    got = output_law(Lookahead(3, 2, 2), models, Law(), (0,), 4)
    assert distance(got, true_law(models, Law(), (0,), 4)) > 1e-3


@pytest.mark.parametrize("released", [False, True])
def test_a_stop_token_in_a_guess_keeps_the_law(released):
    models = table_pair(vocab=2, order=1)
    decoder = Lookahead(3, 2, 2, pool_from_prompt=True, released=released)
    got = output_law(decoder, models, Law(), (0, 1, 0, 1, 1), 4, stop={1})
    assert distance(got, true_law(models, Law(), (0, 1, 0, 1, 1), 4, stop={1})) < 1e-12


def longest_branch(guesses, drawn):
    """Mutation of `follow`: every branch has draws of its own, and the longest match is kept."""
    length = len(guesses[0])
    best, chosen = [drawn[0]], 0
    for index, guess in enumerate(guesses):
        own = [drawn[0], *drawn[1 + index * length : 1 + (index + 1) * length]]
        hit = 0
        while hit < length and guess[hit] == own[hit]:
            hit += 1
        if hit + 1 > len(best):
            best, chosen = own[: hit + 1], index
    return best, chosen


def test_one_draw_for_each_prefix_is_exact_and_one_for_each_branch_is_not():
    law = (0.5, 0.3, 0.2)
    guesses = [(0, 1), (0, 2)]
    for rule, exact in ((follow, True), (longest_branch, False)):
        got = [0.0, 0.0, 0.0]
        for first, second in itertools.product(range(3), repeat=2):
            emitted, _ = rule(guesses, [0, first, 0, second, 0])
            got[emitted[1]] += law[first] * law[second]
        assert (max(abs(g - p) for g, p in zip(got, law, strict=True)) < 1e-12) == exact


def test_follow_shares_the_draw_of_equal_prefixes():
    guesses = [(4, 5), (4, 6), (7, 8)]
    # root 4; branch 0: 6, 1; branch 1: 9 (ignored: same prefix as branch 0), 2; branch 2: 0, 0
    assert follow(guesses, [4, 6, 1, 9, 2, 0, 0]) == ([4, 6, 2], 1)
    assert follow(guesses, [3, 6, 1, 9, 2, 0, 0]) == ([3], 0)
    assert follow(guesses, [7, 6, 1, 9, 2, 8, 5]) == ([7, 8, 5], 2)
    assert follow([], [3]) == ([3], 0)


# The mask.

LAYOUT = Layout(columns=4, rows=2, guesses=2, length=3)


def names():
    """Name every slot: window (row, column) or guess (g, step)."""
    window = [("w", row, column) for row in range(3) for column in range(4)]
    return window + [("g", guess, step) for guess in range(2) for step in range(3)]


def sees(viewer, seen):
    kind, first, second = viewer
    if kind == "g":
        mine = seen[0] == "g" and seen[1] == first and seen[2] <= second
        return mine or seen == ("w", 0, 0)
    if seen[0] == "g":
        return False
    if seen[1] == 0:
        return seen[2] <= second
    return seen[1] <= first and seen[2] == second


def test_the_mask_is_the_published_one():
    mask = LAYOUT.mask()
    slots = names()
    expected = [[sees(viewer, seen) for seen in slots] for viewer in slots]
    assert mask.ancestors.tolist() == expected
    positions = [first + second if kind == "w" else second + 1 for kind, first, second in slots]
    assert mask.offsets.tolist() == positions


def test_perturbing_one_token_moves_only_the_logits_that_see_it(checkpoints):
    target = checkpoints["qwen3"].target
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    slots = names()
    tokens = torch.arange(10, 10 + len(slots))[None]

    def logits(fed):
        cache = target.new_cache(1, 64)
        target.forward(prompt, cache)
        return target.forward(fed, cache, View(mask=LAYOUT.mask()))[0]

    reference = logits(tokens)
    for index, perturbed in enumerate(slots):
        changed = tokens.clone()
        changed[0, index] = 90
        moved = (logits(changed) - reference).abs().amax(-1) > 1e-9
        assert moved.tolist() == [sees(viewer, perturbed) for viewer in slots]


def test_a_guess_is_scored_as_plain_decoding_scores_it(checkpoints):
    target = checkpoints["qwen3"].target
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    tokens = torch.arange(10, 28)[None]
    cache = target.new_cache(1, 64)
    target.forward(prompt, cache)
    fused = target.forward(tokens, cache, View(mask=LAYOUT.mask()))[0]
    for start in (12, 15):
        alone = torch.cat([prompt, tokens[:, :1], tokens[:, start : start + 3]], 1)
        plain = target.forward(alone, target.new_cache(1, 64), View(last=3))[0]
        assert torch.allclose(fused[start : start + 3], plain, atol=1e-10)


def test_guesses_that_see_the_window_would_be_noticed(monkeypatch):
    """Mutation: a branch that sees row 0 beside itself."""
    models = ModelPair("deep", TableModel(markov_table(3, 5, 0, 3.0), 5))
    decoder = Lookahead(4, 5, 5, pool_from_prompt=True)
    expected = generate(Autoregressive(), models, GREEDY, (0, 1, 2), 60)
    original = module._mask

    def seeing(columns, rows, guesses, length, device):
        mask = original(columns, rows, guesses, length, device)
        visible = mask.ancestors.clone()
        visible[columns * (rows + 1) :, :columns] = True
        return type(mask)(mask.offsets, visible)

    assert generate(decoder, models, GREEDY, (0, 1, 2), 60).tokens == expected.tokens
    monkeypatch.setattr(module, "_mask", seeing)
    assert generate(decoder, models, GREEDY, (0, 1, 2), 60).tokens != expected.tokens


def test_masks_are_cached_by_shape():
    assert Layout(4, 2, 2, 3).mask() is LAYOUT.mask()
    assert Layout(1, 0, 1, 3).mask() is None and Layout(1, 0, 0, 0).mask() is None


# The window and the pool.


def test_the_window_fills_row_by_row_and_then_moves_by_one():
    window = Window(level=4, columns=3, shift_accepted=False)
    window.begin([1, 2, 3, 4], [11, 12, 13, 14])
    assert (window.rows, window.full) == ([[2, 3, 4], [11, 12, 13, 14]], False)
    window.advance([21, 22, 23, 24], 0, (), range(100, 110))
    assert (window.rows, window.full) == ([[3, 4], [12, 13, 14], [22, 23, 24]], True)
    window.advance([31, 32, 33], 2, (), range(100, 110))
    assert window.rows == [[13, 14], [22, 23, 24], [31, 32, 33]]


def test_the_window_may_move_by_all_accepted_tokens():
    window = Window(level=4, columns=3, shift_accepted=True)
    window.begin([1, 2, 3, 4], [11, 12, 13, 14])
    window.advance([21, 22, 23, 24], 0, (), range(100, 110))
    window.advance([31, 32, 33], 2, (), range(100, 110))
    assert window.rows == [[100, 101], [24, 100, 101], [33, 100, 101]]
    window.advance([41, 42, 43], 9, (), range(200, 220))
    assert [len(row) for row in window.rows] == [2, 3, 3]


def test_stop_tokens_are_replaced_in_the_window_but_not_in_the_pool():
    window = Window(level=3, columns=3, shift_accepted=False)
    window.begin([1, 2, 3], [11, 12, 13])
    pool = Pool(5)
    pool.add_window(9, window.rows, [5, 0, 6])
    window.advance([5, 0, 6], 0, {0}, [77, 78, 79, 80])
    assert window.rows == [[12, 13], [5, 77, 6]]
    assert pool.lookup(2) == [(12, 0)]


def test_a_window_gives_one_ngram_for_each_column():
    pool = Pool(5)
    pool.add_window(9, [[3, 4], [12, 13, 14], [22, 23, 24]], [31, 32, 33])
    assert pool.lookup(9) == [(12, 22, 31)]
    assert pool.lookup(3) == [(13, 23, 32)]
    assert pool.lookup(4) == [(14, 24, 33)]
    assert pool.lookup(5) == []


def test_the_pool_forgets_the_least_recently_seen():
    pool = Pool(2)
    for ngram in [(1,), (2,), (1,), (3,)]:
        pool.add(0, ngram)
    assert pool.lookup(0) == [(1,), (3,)]


def test_text_enters_the_pool_as_ngrams():
    pool = Pool(9)
    pool.add_text([1, 2, 3, 1, 2, 4], 3)
    assert pool.lookup(1) == [(2, 3), (2, 4)] and pool.lookup(2) == [(3, 1)]
    assert pool.lookup(4) == []


def test_the_window_is_never_sampled():
    """Only the root and the guesses draw, also at temperature 1; the window takes the argmax."""
    models = table_pair(vocab=5, sharpness=2.0)
    drawn = []

    class Counting(Choices):
        def draw(self, probabilities, uniform):
            if probabilities.dim() == 3:
                drawn.append(probabilities.shape[1])
            return super().draw(probabilities, uniform)

    generation = generate(Lookahead(4, 3, 2), models, Law(), (0, 1, 3), 30, choices=Counting())
    assert drawn == [1 + r.count.nodes for r in generation.rounds[1:]]
    assert any(r.count.target.tokens > r.count.nodes + 1 for r in generation.rounds[1:])


def test_the_ledger_counts_the_window():
    models = table_pair(vocab=5, sharpness=2.0)
    generation = generate(Lookahead(4, 3, 2), models, GREEDY, (0, 1, 3), 30)
    counts = [r.count for r in generation.rounds]
    assert sum(c.emitted for c in counts) == 30
    assert counts[0] == count_of(0, 0, 1, 0, 1, 3 + 4)
    assert [c.target.tokens - c.nodes for c in counts[1:4]] == [1 + 7, 1 + 8, 1 + 8]
    assert counts[-1].target.tokens <= counts[-2].target.tokens
    for count in counts[1:]:
        assert count.proposed in (0, 3) or count.emitted <= count.proposed + 1
        assert count.accepted <= count.proposed <= count.nodes
        assert count.nodes in (0, count.proposed, 2 * count.proposed)
    assert max(c.accepted for c in counts) >= 1


@pytest.mark.parametrize("options", [{"level": 2}, {"window": 0}, {"guesses": 0}])
def test_impossible_shapes_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Lookahead(**options)
