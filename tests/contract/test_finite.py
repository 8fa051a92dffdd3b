"""No method decodes logits that are not finite without a trace: its measurement fails.

The target breaks in the middle of an answer, by NaN or by an infinite logit, as a float16 forward
does that overflows at one token. Healthy models, the draft's equal to the target's among them,
raise no false alarm.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from specbench.clock import CpuClock
from specbench.finite import NotFinite, watching
from specbench.hosting import load_method
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from specbench.schema import catalog
from specbench.schema.build import instantiate
from tests.contract.test_transfers import LAWS, requested
from tests.unit.decoding.transfers import on_device, watch


def broken(model: TableModel, first: int, value: float) -> TableModel:
    """Return a model whose logits are not finite behind contexts of `first` tokens or more."""

    def table(context: tuple[int, ...]) -> Tensor:
        logits = model._table(context).clone()
        if len(context) >= first:
            logits[int(logits.argmax())] = value
        return logits

    return TableModel(table, model.vocab_size, model.name, model.context)


def decoded(method: str, models: ModelPair, request, played: bool = False) -> tuple[int, ...]:
    """Return the tokens of a watched generation whose logits were finite."""
    decoder = instantiate(load_method(method)["decoder"])
    decoder.prepare(models)
    if played:
        with watch(), watching() as noted:
            tokens = decoder.generate(on_device(models), request, CpuClock()).tokens
    else:
        with watching() as noted:
            tokens = decoder.generate(models, request, CpuClock()).tokens
    assert noted.values
    noted.check()
    return tokens


@pytest.mark.parametrize("method", catalog.names("method"))
@pytest.mark.parametrize("law", LAWS)
def test_a_target_that_breaks_fails_and_a_healthy_one_does_not(method: str, law: str) -> None:
    models, request = requested(method, law)
    if models.image is None:
        request = replace(request, max_new_tokens=10)
    first = len(request.prompt) + 4
    value = torch.nan if law == "greedy" else torch.inf
    sick = replace(models, target=broken(models.target, first, value), _caches={})
    with pytest.raises(NotFinite):
        decoded(method, sick, request)
    if law == "sampled":  # a draft that equals its target leaves nothing behind a rejection
        alike = replace(models, draft=models.target, _caches={})
        decoded(method, alike, request, played=True)
