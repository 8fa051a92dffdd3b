"""Losses against values worked out by hand, in float64, and where their gradients flow."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.errors import ConfigError
from specbench.training.losses.divergences import Distillation, forward_kl, jsd, reverse_kl, tvd
from specbench.training.losses.token_filter import filtered, kept_places

# p = (1/2, 1/4, 1/4) and q = (1/4, 1/4, 1/2)
P = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
Q = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).log() + 3.0
# p = (1/2, 1/2, 0) up to e^-40, q = (1/8, 1/8, 3/4)
P2 = torch.tensor([[0.0, 0.0, -40.0]], dtype=torch.float64)
Q2 = torch.tensor([[0.125, 0.125, 0.75]], dtype=torch.float64).log()


def test_forward_and_reverse_kl_by_hand() -> None:
    assert forward_kl(P, Q).item() == pytest.approx(0.25 * math.log(2))
    assert forward_kl(P2, Q2).item() == pytest.approx(math.log(4))
    assert reverse_kl(P2, Q2).item() == pytest.approx(
        0.25 * math.log(0.25) + 0.75 * (math.log(0.75) + 40 + math.log(2))
    )


def test_total_variation_is_one_less_the_acceptance_rate() -> None:
    assert tvd(P, Q).item() == pytest.approx(0.25)
    assert tvd(P2, Q2).item() == pytest.approx(0.75)
    accepted = torch.minimum(P.softmax(-1), Q.softmax(-1)).sum()
    assert tvd(P, Q).item() == pytest.approx(1 - accepted.item())


@pytest.mark.parametrize("weight", [0.25, 0.5])
def test_jensen_shannon_by_hand(weight: float) -> None:
    p, q = (0.5, 0.25, 0.25), (0.25, 0.25, 0.5)
    m = [weight * a + (1 - weight) * b for a, b in zip(p, q, strict=True)]
    first = sum(a * math.log(a / c) for a, c in zip(p, m, strict=True))
    second = sum(b * math.log(b / c) for b, c in zip(q, m, strict=True))
    assert jsd(P, Q, weight).item() == pytest.approx(weight * first + (1 - weight) * second)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "tvd"])
def test_a_perfect_student_has_no_loss_and_only_the_draft_learns(divergence: str) -> None:
    source = torch.Generator().manual_seed(1)
    target = torch.randn(5, 7, generator=source, dtype=torch.float64)
    draft = torch.randn(5, 7, generator=source, dtype=torch.float64).requires_grad_()
    loss = Distillation(divergence, 0.3)
    assert loss(target, target + 2.0).value.item() == pytest.approx(0.0, abs=1e-12)
    found = loss(target, draft)
    assert found.places == 5 and found.value.item() > 0
    found.value.backward()
    assert draft.grad is not None and draft.grad.abs().sum() > 0
    assert draft.grad.sum(-1).abs().max() < 1e-12  # logits may all be moved together
    with torch.no_grad():
        assert loss(target, draft - 0.01 * draft.grad).value < found.value


def test_pinsker_bounds_the_total_variation() -> None:
    source = torch.Generator().manual_seed(2)
    target, draft = torch.randn(2, 50, 9, generator=source, dtype=torch.float64) * 2
    assert (tvd(target, draft) <= (forward_kl(target, draft) / 2).sqrt()).all()


def test_a_wrong_divergence_is_told() -> None:
    with pytest.raises(ConfigError, match=r"divergence' cannot be 'forward'") as told:
        Distillation("forward", 0.5)
    assert "forward_kl" in told.value.why
    with pytest.raises(ConfigError, match="jsd_weight"):
        Distillation("jsd", 1.0)


def test_the_filter_keeps_the_largest_gains() -> None:
    draft = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0], dtype=torch.float64)
    reference = torch.tensor([4.5, 0.0, 1.0, 2.5, 1.0], dtype=torch.float64)
    # Gains: .5, 1, 3, -.5, 2. The quantile of .6 lies at 1.4: two are above it.
    assert kept_places(draft, reference, 0.4).tolist() == [False, False, True, False, True]
    assert kept_places(draft, reference, 1.0).all()


def test_a_filter_that_keeps_all_is_distillation() -> None:
    source = torch.Generator().manual_seed(3)
    target, draft, reference = torch.randn(3, 11, 6, generator=source, dtype=torch.float64)
    whole = Distillation("forward_kl", 0.5)(target, draft)
    found = filtered(target, draft, reference, 1.0)
    assert found.places == whole.places == 11
    assert found.value.item() == pytest.approx(whole.value.item())


def test_only_kept_places_and_not_the_gain_have_gradients() -> None:
    source = torch.Generator().manual_seed(4)
    target, draft, reference = torch.randn(3, 10, 6, generator=source, dtype=torch.float64)
    draft, reference = draft.requires_grad_(), reference.requires_grad_()
    found = filtered(target, draft, reference, 0.3)
    found.value.backward()
    kept = kept_places(forward_kl(target, draft), forward_kl(target, reference), 0.3)
    assert found.places == int(kept.sum()) == 3
    assert draft.grad is not None
    assert (draft.grad.abs().sum(-1) > 0).tolist() == kept.tolist()
    assert reference.grad is None
