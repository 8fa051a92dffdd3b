"""SJD and both couplings keep the target's law, to the last bit, and wrong ones do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.jacobi import couplings, trial
from specbench.decoding.jacobi.acceptance import Ratio
from specbench.decoding.jacobi.couplings import Fresh, Maximal
from specbench.decoding.jacobi.initial import INITIALS, Random
from specbench.decoding.jacobi.window import Window
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.decoding.request import Request
from specbench.decoding.session import Session
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from specbench.rng import Streams
from tests.unit.audit.wrong import StaleFresh, StaleMaximal
from tests.unit.decoding.enumeration import distance, true_law
from tests.unit.decoding.jacobi.choices import RoundScript, family_law
from tests.unit.decoding.jacobi.toy import PROMPT, image_pair
from tests.unit.decoding.parts import table_pair

TEXT = (0, 1, 0)
DRAWN = ("uniform", "sample_left")
"""Initial guesses that have a law."""


def on_text(coupling, initial="random", law=None, count=4, window=3, vocab=2, order=2):
    models = table_pair(vocab=vocab, order=order)
    law = law or Law()
    decoder = SpeculativeJacobi(window, coupling, initial)
    got = family_law(decoder, models, law, count, coupling, initial_law=initial in DRAWN)
    return distance(got, true_law(models, law, TEXT, count))


def on_a_picture(coupling, initial, rows=2, columns=2, window=3, **options):
    models = image_pair(codes=2, rows=rows, columns=columns, **options)
    count = models.image.grid.length
    decoder = SpeculativeJacobi(window, coupling, initial)
    got = family_law(decoder, models, Law(), count, coupling, PROMPT, initial in DRAWN)
    return distance(got, true_law(models, Law(), PROMPT, count))


@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_law_equals_the_targets(coupling, initial):
    assert on_text(coupling, initial) < 1e-12


@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_a_tail_keeps_the_law(coupling):
    models = table_pair(vocab=2, order=2)
    decoder = SpeculativeJacobi(3, coupling, tail=2)
    got = family_law(decoder, models, Law(), 5, coupling, initial_law=False)
    assert distance(got, true_law(models, Law(), TEXT, 5)) < 1e-12


@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_law_equals_the_targets_under_a_warped_law_with_history(coupling):
    law = Law(temperature=0.7, top_k=2, repetition_penalty=1.5)
    assert on_text(coupling, "random", law, vocab=3, count=3, window=2) < 1e-12
    assert on_text(coupling, "uniform", Law(repetition_penalty=1.5)) < 1e-12


@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_law_equals_the_targets_on_a_grid(coupling, initial):
    """Two columns and a forced row end, in windows that reach over it."""
    assert on_a_picture(coupling, initial, rows=2, columns=2, ending=False) < 1e-12


@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_late_positions_keep_the_law(coupling):
    """Five tokens: a draft is coupled up to three times before its test."""
    assert on_text(coupling, "random", count=5, window=3) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_late_positions_keep_the_law_in_a_longer_window(coupling):
    assert on_text(coupling, "random", count=5, window=4) < 1e-12


def test_the_whole_round_is_what_the_shortened_enumeration_says():
    """Every choice of a round enumerated, read or not."""
    from tests.unit.decoding.enumeration import output_law

    models = table_pair(vocab=2, order=2)
    for coupling in ("fresh", "maximal"):
        decoder = SpeculativeJacobi(3, coupling)
        whole = output_law(decoder, models, Law(), TEXT, 3)
        assert distance(whole, true_law(models, Law(), TEXT, 3)) < 1e-12
        short = family_law(decoder, models, Law(), 3, coupling, initial_law=False)
        assert distance(whole, short) < 1e-12


def two_steps(coupling):
    """Return the law of a position whose draft's law goes (.5,.5), (.9,.1), (.5,.5).

    The position is column 1 in a round that rejects column 0 for certain, then column 0.
    """
    models = ModelPair("two steps", TableModel(lambda context: torch.zeros(2), 2))
    request = Request((0,), 9, Law(), Streams(0))
    result = [0.0, 0.0]
    pending = [[]]
    while pending:
        script = RoundScript(pending.pop(), "maximal" if isinstance(coupling, Maximal) else "fresh")
        session = Session(models, replace(request, choices=script), CpuClock())
        window = Window(session, 3, coupling, Random(), Ratio())
        first = script.choose([0.5, 0.5])
        window.fill(2)
        window._drafts = [0, first]
        window._table[:2] = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        laws = torch.tensor([[[0.0, 1.0], [0.9, 0.1], [0.5, 0.5]]], dtype=torch.float64)
        outcome = window.step(laws.log(), torch.tensor([[0, 0, first]]))
        assert outcome == (0, [1])
        session.commit([1])
        fed = window.fill(2)
        laws = torch.full((1, 3, 2), 0.5, dtype=torch.float64)
        emitted = window.step(laws.log(), fed).emitted
        result[emitted[0]] += script.weight
        pending += script.branches
    return result


def test_a_kept_draft_has_the_new_law():
    assert two_steps(Maximal()) == pytest.approx([0.5, 0.5], abs=1e-12)
    assert two_steps(Fresh()) == pytest.approx([0.5, 0.5], abs=1e-12)
    assert two_steps(StaleMaximal()) == pytest.approx([0.722, 0.278], abs=5e-4)


@pytest.mark.parametrize(("wrong", "word"), [(StaleMaximal, "maximal"), (StaleFresh, "fresh")])
def test_stale_laws_would_be_noticed(wrong, word):
    models = table_pair(vocab=2, order=2)
    decoder = SpeculativeJacobi(3, wrong())
    got = family_law(decoder, models, Law(), 4, word, initial_law=False)
    assert distance(got, true_law(models, Law(), TEXT, 4)) > 1e-3


def residual_of(change):
    def wrong(laws, old):
        return change(laws, (laws - old).clamp(min=0))

    return wrong


MUTATIONS = {
    "resampling from p": residual_of(lambda laws, left: laws.clone()),
    "an epsilon in the residual": residual_of(lambda laws, left: left + 1e-3),
    "no residual at all": residual_of(lambda laws, left: torch.ones_like(left)),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_a_wrong_residual_would_be_noticed(monkeypatch, coupling, mutation):
    monkeypatch.setattr(couplings, "residual", MUTATIONS[mutation])
    monkeypatch.setattr(trial, "residual", MUTATIONS[mutation])
    assert on_text(coupling) > 1e-4


def test_an_epsilon_gives_mass_to_what_the_target_forbids(monkeypatch):
    """The same mutation under top-k: tokens of probability zero come out."""
    monkeypatch.setattr(trial, "residual", MUTATIONS["an epsilon in the residual"])
    models = table_pair(vocab=3, order=1)
    law = Law(top_k=2)
    got = family_law(SpeculativeJacobi(2), models, law, 3, initial_law=False)
    assert sum(got[tokens] for tokens in set(got) - set(true_law(models, law, TEXT, 3))) > 1e-5


def test_an_empty_residual_is_the_law_itself():
    """p = q in floating point, and the number that says otherwise is drawn all the same."""
    laws = torch.tensor([[0.3, 0.7], [0.2, 0.8]])
    old = torch.tensor([[0.3, 0.7], [0.8, 0.2]])
    weights = trial.residual(laws, old)
    assert torch.equal(weights[0], laws[0])
    assert torch.equal(weights[1], torch.tensor([0.0, 0.8]) - torch.tensor([0.0, 0.2]))


def test_unread_random_numbers_do_not_matter(monkeypatch):
    """Mutation: a test that looks at the number of another column."""
    monkeypatch.setattr(
        RoundScript,
        "happens",
        lambda self, probability, uniform: torch.roll(
            ORIGINAL(self, torch.roll(probability, 1), uniform), -2
        ),
    )
    assert on_text("fresh") > 1e-4


ORIGINAL = RoundScript.happens
