"""Slow, obvious definitions: no cache, no mask, one context at a time."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from specbench.law import History
from specbench.models.base import View
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from tests.unit.models import tiny_checkpoints


def logits_after(model, law, context):
    """Return the penalised logits behind a context, [V]."""
    fed = torch.tensor([list(context)])
    logits = model.forward(fed, model.new_cache(1, fed.shape[1]), View(last=1))[:, -1]
    return law.penalise(logits, History(law, fed, model.vocab_size).now())[0]


def entropy_of(logits):
    """Return the entropy in nats."""
    law = logits.softmax(-1)
    return -sum(p * torch.log(torch.tensor(p)).item() for p in law.tolist() if p > 0)


def checkpoint(folder, name, noise=0.0, seed=0):
    """Return a random checkpoint as a transformers module in float64."""
    path = tiny_checkpoints.write(folder, name, seed)
    module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.data += noise * torch.randn_like(parameter)
    return module


def checkpoint_pair(folder, name, engine="lean", noise=0.05):
    """Return a pair of a checkpoint and a noisy copy of it."""
    models = []
    for scale in (0.0, noise):
        module = checkpoint(folder, name, scale)
        if engine == "lean":
            models.append(LeanDecoder.of(module, name, torch.device("cpu"), torch.float64))
        else:
            models.append(CausalLM(module, name))
    return ModelPair(name, *models)


def counts(generation):
    """Return the counts of all rounds."""
    return [entry.count for entry in generation.rounds]
