"""Argmax with its note: the same index as torch's, and a number that tells a broken row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from specbench import finite
from specbench.finite import NotFinite, argmax, watching
from specbench.law import Law, draw, draw_distinct


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (1, 7), (3, 4, 6), (1, 1, 9000), (2, 5000)])
def test_argmax_is_the_first_of_the_largest(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randint(0, 3, shape, generator=generator).to(dtype)
    with watching() as noted:
        found = argmax(logits)
        of_every_second = argmax(logits[..., ::2])
    assert found.shape == shape[:-1] and found.dtype == torch.int64
    rows = logits.double().numpy()
    assert (found.numpy() == rows.argmax(-1)).all()
    assert (of_every_second.numpy() == rows[..., ::2].argmax(-1)).all()
    assert np.array_equal(noted.values[0].double().numpy().reshape(-1), rows.max(-1).reshape(-1))
    noted.check()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("width", [16, 5000])
@pytest.mark.parametrize(
    "choose",
    [
        lambda logits: Law(0.0).argmax(logits),
        lambda logits: Law(0.0).probabilities(logits),
        lambda logits: draw(Law(1.0).probabilities(logits), 0.3),
        lambda logits: draw(Law(0.8, top_k=4, top_p=0.9).probabilities(logits), 0.3),
        lambda logits: draw_distinct(
            Law(1.0).probabilities(logits), torch.tensor([[0.2, 0.7]], dtype=torch.float64)
        ),
    ],
)
def test_one_logit_that_is_no_number_is_noticed(choose, width: int, value: float) -> None:
    logits = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
    with watching() as noted:
        choose(logits)
    noted.check()
    logits[0, 11] = value
    with watching() as noted:
        choose(logits)
    with pytest.raises(NotFinite, match="logits are not finite"):
        noted.check()


def test_nothing_is_noted_where_nobody_watches() -> None:
    argmax(torch.zeros(1, 3))
    with watching() as noted:
        argmax(torch.zeros(1, 3))
    argmax(torch.zeros(1, 3))
    assert len(noted.values) == 1 and finite._noted is None
    noted.check()


def test_what_breaks_over_such_logits_is_called_by_its_cause() -> None:
    with pytest.raises(NotFinite), watching():
        argmax(torch.full((1, 3), torch.nan))
        raise ValueError("max() arg is an empty sequence")
    with pytest.raises(ValueError), watching():
        argmax(torch.zeros(1, 3))
        raise ValueError
