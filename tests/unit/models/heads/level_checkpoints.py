"""Medusa's and Hydra's files, written key by key, and what their releases compute from them."""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from specbench.models.heads.base import TargetShape
from specbench.models.heads.load import family_class, family_of, find_files
from tests.unit.models.by_hand import Tensors, states

CHANNELS, VOCAB, HEADS = 32, 96, 3
SHAPE = TargetShape("llama", "llama", CHANNELS, VOCAB, 3)
PLUS = "prefix_embeding_layer."


def medusa_state(*, layers=1, own=True, prefix="", heads=HEADS, channels=CHANNELS, vocab=VOCAB):
    tensors = Tensors(dtype=torch.float32)
    for head in range(heads):
        for layer in range(layers):
            tensors.linear(f"{prefix}{head}.{layer}.linear", channels, channels, bias=True)
        if own:
            tensors.linear(f"{prefix}{head}.{layers}", vocab, channels)
    return tensors.state


def medusa_logits(state, h, lm_head, *, layers=1, prefix="", heads=HEADS):
    """Return [K, T, V] of states [T, C], in float64."""
    logits = []
    for head in range(heads):
        x = h.double()
        for layer in range(layers):
            name = f"{prefix}{head}.{layer}.linear"
            x = x + F.silu(x @ state[f"{name}.weight"].double().T + state[f"{name}.bias"].double())
        own = state.get(f"{prefix}{head}.{layers}.weight")
        logits.append(lm_head(x) if own is None else x @ own.double().T)
    return torch.stack(logits)


def hydra_state(*, layers=1, plus=False, heads=HEADS, channels=CHANNELS, vocab=VOCAB):
    tensors = Tensors(dtype=torch.float32)
    if plus:
        tensors.body(
            PLUS, channels=channels, feed=48, layers=1, heads=4, groups=4, vocabulary=vocab
        )
    for head in range(heads):
        mlp = f"hydra_mlp.{head}"
        wide = (head + 2) * channels
        tensors.linear(f"{mlp}.{int(plus)}.linear", channels, wide, bias=True, scale=0.2)
        tensors.linear(f"{mlp}.{int(plus)}.res_connection", channels, wide, bias=True, scale=0.2)
        for layer in range(1, layers):
            name = f"{mlp}.{2 * layer + 1 if plus else layer}.linear"
            if layer == 1:
                first = name
                tensors.linear(name, channels, channels, bias=True)
            for part in ("weight", "bias"):
                tensors.state[f"{name}.{part}"] = tensors.state[f"{first}.{part}"]
        own = f"hydra_lm_head.{head}.1" if plus else f"hydra_lm_head.{head}"
        tensors.linear(own, vocab, channels, bias=True)
    return tensors.state


def hydra_logits(state, h, embedded, *, layers=1, plus=False, heads=HEADS):
    """Return for head k [T - 1 - k, V] of states and embeddings [T, C], in float64."""
    wide = {name: tensor.double() for name, tensor in state.items()}
    read = states(state, PLUS, h, heads=4, groups=4, epsilon=1e-6) if plus else h

    def product(name, x):
        return x @ wide[f"{name}.weight"].T + wide[f"{name}.bias"]

    logits = []
    for head in range(heads):
        rows = []
        for t in range(len(h) - 1 - head):
            x = torch.cat([read[t], *(embedded[t + 1 + step] for step in range(head + 1))])
            mlp = f"hydra_mlp.{head}.{int(plus)}"
            x = F.silu(product(f"{mlp}.linear", x)) + product(f"{mlp}.res_connection", x)
            for layer in range(1, layers):
                place = 2 * layer + 1 if plus else layer
                x = x + F.silu(product(f"hydra_mlp.{head}.{place}.linear", x))
            rows.append(product(f"hydra_lm_head.{head}.1" if plus else f"hydra_lm_head.{head}", x))
        logits.append(torch.stack(rows))
    return logits


def medusa_config(layers=1, **more):
    base = "lmsys/vicuna-7b-v1.3"
    return {
        "base_model_name_or_path": base,
        "medusa_num_heads": 2,
        "medusa_num_layers": layers,
        **more,
    }


def hydra_config(layers=1, plus=False, **more):
    return {
        "base_model_name_or_path": "lmsys/vicuna-7b-v1.3",
        "grounded_heads": True,
        "hidden_state_offset": 0,
        "hydra_head_arch": "prefix-mlp" if plus else "mlp",
        "hydra_num_heads": HEADS,
        "hydra_num_layers": layers,
        **more,
    }


def written(folder, config, state, file):
    """Write a head's folder; return its files as they are found."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if file.endswith(".pt"):
        torch.save(state, folder / file)
    else:
        save_file({name: tensor.clone() for name, tensor in state.items()}, folder / file)
    return find_files(str(folder))


def loaded(files, target):
    """Load a head as the runner does."""
    family = family_class(family_of(files))
    family.check(files, SHAPE)
    return family.load(files, target)
