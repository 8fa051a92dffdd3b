"""The laws of known errors are those that wrong decoders have, and their ratios are fair bets."""

from __future__ import annotations

import pytest
import torch

from specbench.audit.alternatives import (
    LAWS,
    PLANTED,
    SHARES,
    Context,
    earlier,
    laws_of,
    log_ratios,
)
from specbench.audit.enumeration import enumerate_output
from specbench.decoding.request import Request, StopTokens
from specbench.decoding.verifiers.token_sd import TokenSD, accepted_prefix
from specbench.law import Law
from specbench.models.base import View
from specbench.rng import Streams
from tests.unit.audit.wrong import NoResidual, TakesAllDrafts, chain
from tests.unit.decoding.parts import table_pair

VOCAB = 4


class Raised(TokenSD):
    """Accepts with a multiple of the right chance."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def accepted(self, scored, target, draft):
        weights = torch.full((draft.shape[1],), self._factor, dtype=target.dtype)
        return accepted_prefix(scored, target, draft, weights)


def random_context(seed: int, positions: int = 5, draft: bool = True, zeros: bool = False):
    generator = torch.Generator().manual_seed(seed)

    def law():
        weights = torch.rand(positions, VOCAB, generator=generator, dtype=torch.float64) + 0.01
        if zeros:
            holes = torch.rand(weights.shape, generator=generator) < 0.3
            weights = weights.masked_fill(holes & (weights < weights.amax(-1, True)), 0.0)
        return weights / weights.sum(-1, keepdim=True)

    return Context(law(), law() if draft else None)


@pytest.mark.parametrize(
    ("verifier", "place"),
    [
        (TokenSD(), None),
        (NoResidual(), 0),
        (Raised(1.1), 2),
        (Raised(1.3), 3),
        (Raised(2.0), 4),
        (Raised(0.7), 5),
        (TakesAllDrafts(), 7),
    ],
)
def test_a_law_is_that_of_a_decoder_with_the_error(verifier, place):
    """The second token of an enumerated wrong decoder, given the first.

    A third one leaves room for a draft of one token.
    """
    models = table_pair(vocab=VOCAB, sharpness=1.5)
    request = Request((0, 1), 3, Law(), Streams(0, "x"), StopTokens(frozenset()))
    models = models.under(request.law)
    found = enumerate_output(chain(verifier, draft_length=1), models, request, 1000)
    for first in range(VOCAB):
        fed = torch.tensor([[*request.prompt, first]])
        laws = [
            model.forward(fed, model.new_cache(1, 8), View(last=2))[0].double().softmax(-1)
            for model in (models.target, models.draft)
        ]
        expected = laws[0][1] if place is None else laws_of(Context(*laws))[place, 1]
        law = torch.zeros(VOCAB, dtype=torch.float64)
        for tokens, chance in found.law.items():
            law[tokens[1]] += chance if tokens[0] == first else 0.0
        torch.testing.assert_close(law / law.sum(), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("draft", [False, True])
def test_laws_are_laws_and_the_first_token_is_the_targets(draft, zeros):
    for seed in range(20):
        context = random_context(seed, draft=draft, zeros=zeros)
        laws = laws_of(context)
        assert laws.shape == (len(LAWS), *context.target.shape) and bool((laws >= 0).all())
        torch.testing.assert_close(laws.sum(-1), torch.ones_like(laws[..., 0]))
        assert bool((laws[:, 0] == context.target[0]).all())


@pytest.mark.parametrize("zeros", [False, True])
def test_a_ratio_is_a_fair_bet_against_the_targets_law(zeros):
    """Its mean over the target's law is one; less where a wrong law leaves the target's support."""
    for seed in range(20):
        context = random_context(seed, zeros=zeros)
        laws, target = laws_of(context), context.target
        mean = torch.zeros(len(target), len(LAWS), len(SHARES), dtype=torch.float64)
        for token in range(VOCAB):
            drawn = torch.full((len(target), 1), token)
            weight = target[:, token, None, None]
            mean += weight * log_ratios(laws, target, drawn).exp()
        assert float(mean.max()) <= 1 + 1e-12
        if not zeros:
            torch.testing.assert_close(mean, torch.ones_like(mean))


def test_a_forbidden_token_says_nothing_here():
    context = Context(
        torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double(), torch.tensor([[0.5, 0.5]] * 2).double()
    )
    ratios = log_ratios(laws_of(context), context.target, torch.tensor([[1], [1]]))
    assert not ratios.any()


def test_planted_errors_are_named_as_the_laws_are():
    number = {1.1: "1.1 times", 1.3: "1.3 times", 2.0: "twice"}
    assert LAWS[PLANTED["the target's law in place of the residual"]].startswith("the target's law")
    for factor, words in number.items():
        place = PLANTED[f"drafts accepted with {words} the chance"]
        assert LAWS[place] == f"drafts accepted with {factor:g} times the chance"


def test_the_law_one_position_earlier_stands_one_position_later():
    laws = random_context(0).target
    assert bool((earlier(laws)[1:] == laws[:-1]).all())
    assert bool((earlier(laws)[0] == laws[0]).all())
