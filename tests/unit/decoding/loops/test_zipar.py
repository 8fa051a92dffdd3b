"""ZipAR: who is fed when, who sees whom, and raster order as its limit."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.clock import CpuClock
from specbench.decoding.loops import wavefront, zipar
from specbench.decoding.loops.wavefront import Plan, plan
from specbench.decoding.loops.zipar import ZipAR
from specbench.decoding.request import Request
from specbench.decoding.tree import TreeMask
from specbench.errors import ConfigError
from specbench.law import Guidance, Law, draw
from specbench.models.base import View
from specbench.models.decoder import LeanDecoder
from specbench.models.guided import GuidedModel
from specbench.models.image import Grid
from specbench.models.pair import ModelPair
from specbench.rng import Purpose, Streams
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, table_pair
from tests.unit.decoding.pictures import (
    FIRST,
    Conditions,
    Side,
    mixed,
    toy_grid,
    toy_picture,
    toy_table,
)
from tests.unit.models import tiny_checkpoints

PROMPT = (1, 0, 1)
GUIDED = Law(guidance=Guidance(2.5))
LAWS = {
    "greedy": Law(0.0, guidance=Guidance(2.0)),
    "sampled": GUIDED,
    "cut": Law(0.8, top_k=2, guidance=Guidance(1.5)),
}


def generate(decoder, models, law, seed=0, count=None):
    models = models.under(law)
    count = count or models.image.grid.length
    request = Request(PROMPT, count, law, Streams(seed, "picture"))
    return decoder.generate(models, request, CpuClock())


class Reference:
    """ZipAR written down without caches, masks or plans."""

    def __init__(self, grid, window, table, codes, law):
        self.grid, self.window, self.table = grid, min(window, grid.columns), table
        self.codes, self.law = codes, law

    def rounds(self, choose):
        """Decode; `choose(law, place)` picks a code. Return {place: token}, rounds of places."""
        grid, drawn, stand_ins, rounds = self.grid, {}, {}, []
        while len(drawn) < grid.rows * grid.columns:
            present = dict(drawn)
            held = [sum(self.place(r, c) in drawn for c in range(grid.columns)) for r in self.rows]
            targets = []
            for row in self.rows:
                started = row == 0 or held[row - 1] >= self.window
                if not started:
                    break
                before = self.place(row, 0) - 1
                if row and grid.row_end is not None:
                    present[before] = grid.row_end
                elif row and before not in drawn:
                    if before not in stand_ins:
                        above = max(row - 2, 0)
                        newest = max(p for p in drawn if grid.place(p)[0] == above)
                        stand_ins[before] = drawn[newest]
                    present[before] = stand_ins[before]
                if held[row] < grid.columns:
                    targets.append(self.place(row, held[row]))
            chosen = {place: choose(self.next_law(present, place), place) for place in targets}
            drawn |= chosen
            rounds.append(targets)
        return drawn, rounds

    @property
    def rows(self):
        return range(self.grid.rows)

    def place(self, row, column):
        return row * self.grid.width + column

    def next_law(self, present, place):
        context = tuple(present[p] for p in sorted(present) if p < place)
        logits = mixed(self.table, PROMPT, context, self.law.guidance, self.codes)
        return self.law.probabilities(logits)

    def sample(self, seed):
        streams = Streams(seed, "picture")

        def choose(law, place):
            uniform = streams.uniform(len(PROMPT) + place, Purpose.SAMPLE)
            return FIRST + int(draw(law, uniform))

        drawn, rounds = self.rounds(choose)
        forced = self.grid.forced
        tokens = tuple(drawn.get(place, forced[place]) for place in range(self.grid.length))
        return tokens, rounds


def settings():
    for (rows, columns), row_end in itertools.product([(3, 3), (4, 2), (2, 4)], [True, False]):
        for window in range(1, columns + 2):
            yield rows, columns, row_end, window


def forwards_of_luminas_release(rows, columns, window):
    """Its counter: a row's count begins at 1 with the token before the row."""
    counts, forwards = [1], 0
    while len(counts) < rows or counts[-1] <= columns:
        forwards += 1
        for row in [row for row, count in enumerate(counts) if count <= columns]:
            counts[row] += 1
            if counts[row] == window and row + 1 == len(counts) < rows:
                counts.append(1)
    return forwards


@pytest.mark.parametrize(("rows", "columns", "window"), [(48, 48, 16), (6, 6, 2), (5, 9, 4)])
def test_a_window_of_luminas_release_is_one_smaller_here(rows, columns, window):
    grid = Grid(rows, columns, row_end=99, ending=(98,))
    forwards = forwards_of_luminas_release(rows, columns, window)
    assert len(plan(grid, window - 1).steps) == forwards
    assert len(plan(grid, window).steps) == forwards + rows - 1
    assert (rows, forwards) != (48, 800) and forwards == columns + (rows - 1) * (window - 1)


def test_no_window_is_a_third_of_a_row():
    models = toy_picture(3, 6)
    alone, third = (generate(ZipAR(window), models, GUIDED) for window in (None, 2))
    assert alone.tokens == third.tokens and len(alone.rounds) == len(third.rounds) == 10


@pytest.mark.parametrize(("rows", "columns", "row_end", "window"), list(settings()))
def test_the_tokens_are_those_of_the_method_written_down(rows, columns, row_end, window):
    models = toy_picture(rows, columns, 3, row_end)
    for name, law in LAWS.items():
        reference = Reference(models.image.grid, window, toy_table(3), 3, law)
        for seed in range(1 if name == "greedy" else 3):
            tokens, rounds = reference.sample(seed)
            generation = generate(ZipAR(window), models, law, seed)
            assert generation.tokens == tokens
            assert len(generation.rounds) == len(rounds)


@pytest.mark.parametrize("text", [0, 2])
@pytest.mark.parametrize("row_end", [True, False])
@pytest.mark.parametrize("law", [*LAWS.values(), replace(GUIDED, repetition_penalty=1.7)], ids=repr)
def test_a_window_of_a_whole_row_is_plain_decoding_token_for_token(row_end, law, text):
    models = toy_picture(3, 3, 3, row_end, text)
    for seed, window in itertools.product(range(3), (3, 99)):
        plain = generate(Autoregressive(), models, law, seed)
        got = generate(ZipAR(window), models, law, seed)
        assert got.tokens == plain.tokens
        assert len(got.rounds) == text + 9  # one forward for each free token, none for forced ones
        narrow = generate(ZipAR(1), models, law, seed)
        assert narrow.tokens[: text + 3] == plain.tokens[: text + 3]


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (12, 12), (2, 5), (1, 4), (5, 1)])
@pytest.mark.parametrize("row_end", [True, False])
def test_forwards_are_columns_and_a_window_for_every_further_row(rows, columns, row_end):
    grid = toy_grid(rows, columns, 3, row_end)
    for window in (1, 2, 8, columns, columns + 3):
        order = plan(grid, window)
        assert len(order.steps) == columns + (rows - 1) * min(window, columns)
        targets = [target for step in order.steps for target in step.targets]
        codes = [place for place, forced in enumerate(grid.forced) if forced < 0]
        assert sorted(targets) == codes
        assert order.steps[-1].complete == grid.length
        assert all(a.complete < b.complete for a, b in itertools.pairwise(order.steps))
    assert len(plan(toy_grid(24, 24, 3, False), 8).steps) == 24 + 23 * 8 == 208


def test_a_plan_by_hand():
    """Two columns, no row end, window 1: the third row's stand-in is the first row's newest."""
    order = plan(Grid(3, 2), 1)
    assert [step.targets for step in order.steps] == [(0,), (1, 2), (3, 4), (5,)]
    fed = list(zip(order.sources, order.positions, strict=True))
    assert [fed[step.begin : step.end] for step in order.steps] == [
        [],
        [(0, 0), (0, 1)],  # code 0, and in place of code 1 its neighbour
        [(1, 1), (2, 2), (1, 3)],  # the true code 1; in place of code 3 the code above it
        [(3, 3), (4, 4)],  # the true code 3 comes with the last row's newest
    ]
    assert order.stale == (7, 2, 7, 7, 5, 7, 7)
    assert order.stand_ins == 2 and order.base == 1
    visible = order.visible(torch.device("cpu"))
    assert visible[5].tolist() == [True, False, True, True, False, True, False]
    assert visible[4, :5].tolist() == [True, False, True, True, True]
    assert visible[1, :2].tolist() == [True, True]


def test_the_ledger_counts_forwards_and_every_token_once():
    models = toy_picture(4, 3, 3)
    generation = generate(ZipAR(1), models, GUIDED)
    counts = [round_.count for round_ in generation.rounds]
    assert len(counts) == 3 + 3 * 1
    assert (
        sum(count.emitted for count in counts) == len(generation.tokens) == models.image.grid.length
    )
    assert min(count.emitted for count in counts) >= 1 and counts[0].emitted == 1
    assert all(count.target.forwards == 1 for count in counts)
    assert counts[0].target.tokens == len(PROMPT)
    # Codes but the last row's last, and the row ends between rows.
    assert sum(count.target.tokens for count in counts[1:]) == 11 + 3
    forced = sum(token >= 0 for token in models.image.grid.forced)
    assert sum(count.decided for count in counts) == models.image.grid.length - forced


@pytest.mark.parametrize("count", range(1, 13))
def test_a_shorter_request_is_a_prefix(count):
    models = toy_picture(3, 3, 3)
    whole = generate(ZipAR(1), models, GUIDED)
    assert generate(ZipAR(1), models, GUIDED, count=count).tokens == whole.tokens[:count]


def law_of(reference):
    """Return {tokens: probability} of the method written down."""
    grid, laws = reference.grid, {}
    for codes in itertools.product(range(reference.codes), repeat=grid.rows * grid.columns):
        places = [place for place, forced in enumerate(grid.forced) if forced < 0]
        wanted = dict(zip(places, codes, strict=True))
        weight = 1.0

        def choose(law, place, wanted=wanted):
            nonlocal weight
            weight *= float(law[wanted[place]])
            return FIRST + wanted[place]

        drawn, _ = reference.rounds(choose)
        tokens = tuple(drawn.get(place, forced) for place, forced in enumerate(grid.forced))
        laws[tokens] = weight
    return laws


@pytest.mark.parametrize("row_end", [True, False])
def test_its_law_is_the_product_of_laws_after_what_is_there(row_end):
    models = toy_picture(2, 2, 2, row_end, order=5)
    models = models.under(GUIDED)
    length = models.image.grid.length
    exact = true_law(models, GUIDED, PROMPT, length)
    written = law_of(Reference(models.image.grid, 1, toy_table(2, 5), 2, GUIDED))
    narrow = output_law(ZipAR(1), models, GUIDED, PROMPT, length)
    assert distance(narrow, written) < 1e-12
    assert distance(output_law(ZipAR(2), models, GUIDED, PROMPT, length), exact) < 1e-12
    strayed = sum(abs(narrow[key] - exact[key]) for key in exact) / 2
    assert strayed > 0.02  # lossy, and not by rounding


# A transformer: positions, masks and stand-ins in the cache.


@pytest.fixture(scope="module")
def lean(tmp_path_factory):
    path = tiny_checkpoints.write(tmp_path_factory.mktemp("lean"), "llama3")
    module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    return LeanDecoder.of(module, "lean", torch.device("cpu"), torch.float64)


class Recorder:
    """Passes a model through and keeps what was fed and answered."""

    def __init__(self, model):
        self._model = model
        self.calls = []
        self.padding = None

    def __getattr__(self, name):
        return getattr(self._model, name)

    def forward(self, tokens, cache, view):
        logits = self._model.forward(tokens, cache, view)
        self.calls.append((tokens, view.mask, logits))
        self.padding = cache.padding
        return logits


def sees(order: Plan, query: int, slot: int) -> bool:
    """Say whether a query sees a slot, from what was fed and when, slot by slot."""
    step = next(i for i, s in enumerate(order.steps) if s.begin <= query < s.end)
    fed = [slot for s in order.steps[: step + 1] for slot in range(s.begin, s.end)]
    at_place = [s for s in fed if order.positions[s] == order.positions[slot]]
    return slot in fed and slot == at_place[-1] and order.positions[slot] <= order.positions[query]


@pytest.mark.parametrize(("scale", "gap"), [(1.0, 0), (2.0, 0), (2.0, 2)])
@pytest.mark.parametrize("row_end", [True, False])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_forwards_equal_full_recomputation(lean, window, row_end, scale, gap):
    """With the same visibility; with one row and two, and with padding before the second."""
    grid = toy_grid(4, 3, 20, row_end)
    body = Recorder(lean)
    target = GuidedModel(body, Conditions(gap), grid, FIRST, 20, lean.vocab_size)
    models = ModelPair("lean", target, image=Side(grid, torch.eye(20)))
    generate(ZipAR(window), models, Law(top_k=5, guidance=Guidance(scale)))
    order = plan(grid, window)
    fed = torch.cat([tokens for tokens, _, _ in body.calls[1:]], 1)
    places = torch.tensor(order.positions)
    visible = torch.tensor(
        [[sees(order, q, s) for s in range(order.slots)] for q in range(order.slots)]
    )
    cache = lean.new_cache(fed.shape[0], 64)
    cache.padding = body.padding
    lean.forward(body.calls[0][0], cache)
    whole = lean.forward(fed, cache, View(mask=TreeMask(places, visible)))
    for step, (_, mask, logits) in zip(order.steps[1:], body.calls[1:], strict=True):
        count = len(step.targets)
        torch.testing.assert_close(logits, whole[:, step.end - count : step.end])
        assert (mask is None) == step.ordered
    assert body.padding == ((0, gap) if gap else None)
    if window == 3:
        assert all(mask is None for _, mask, _ in body.calls)
    elif not row_end:
        assert order.stand_ins == 3


# Mutations: each must be noticed.


def seen_for_ever(original):
    def visible(self, device):
        return original(replace(self, stale=(self.slots,) * self.slots), device)

    return visible


def blind_to_order(original):
    def visible(self, device):
        return original(replace(self, positions=(0,) * self.slots), device)

    return visible


def slots_as_places(original):
    def mask(front, begin, end):
        right = original(front, begin, end)
        return TreeMask(torch.arange(right.offsets.shape[0]), right.ancestors)

    return mask


def newest_of_all(original):
    def stand_in(self, place):
        return max(index for index, known in enumerate(self._known) if known)

    return stand_in


@pytest.mark.parametrize(
    ("owner", "name", "mutation"),
    [
        (Plan, "visible", seen_for_ever),
        (Plan, "visible", blind_to_order),
        (zipar, "_mask", slots_as_places),
        (wavefront._Planner, "_stand_in", newest_of_all),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_mutation_is_noticed(monkeypatch, owner, name, mutation):
    monkeypatch.setattr(owner, name, mutation(getattr(owner, name)))
    models = toy_picture(4, 3, 3, False)
    reference = Reference(models.image.grid, 1, toy_table(3), 3, GUIDED)
    assert any(
        generate(ZipAR(1), models, GUIDED, seed).tokens != reference.sample(seed)[0]
        for seed in range(8)
    )


def test_bad_values_are_refused_before_anything_runs():
    for window in (0, -1, 2.5, "wide"):
        with pytest.raises(ConfigError, match="window"):
            ZipAR(window)
    with pytest.raises(ConfigError, match="image model"):
        ZipAR(8).prepare(table_pair())
    models = toy_picture()
    with pytest.raises(ConfigError, match="more than the 13"):
        generate(ZipAR(2), models, GUIDED, count=14)
    ZipAR(2).prepare(models)
