"""Train the embedded text pair from a seed: `python -m specbench.zoo.train --out FOLDER`.

The target learns from procedural text alone. The draft then learns the target's law by
distillation on the same stream. Matrices inside the layers are trained with Muon (orthogonalised
momentum; Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), which
needs fewer tokens than AdamW at this size; embeddings, head and norms are trained with AdamW.
The number of steps is fixed, so that a seed and a number of steps name the weights, up to the
rounding of the machine.

One process of one thread runs per core. Each takes one batch of every step, gradients are summed
once a step, and each process updates half of the matrices. On a machine that also does other work
this loses far less than one process of several threads, whose operators wait for each other.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Tokenizer

from specbench.zoo.data import Batch, batches, training_samples
from specbench.zoo.evaluate import DRAFT_FOLDER, TARGET_FOLDER, converse, is_right
from specbench.zoo.held_out import held_out_prompts
from specbench.zoo.tokenizer import save_tokenizer, train_tokenizer
from specbench.zoo.worlds import WORLDS

TARGET_STEPS, DRAFT_STEPS = 1400, 600
_TOKENIZER_SAMPLES = 20_000
_BATCH_TOKENS, _PROCESSES = 2048, 2
_WARM_UP, _DECAY_FROM = 0.02, 0.35
_MATRIX_RATE, _OTHER_RATE = 4e-3, 3e-3
_WEIGHT_DECAY = 0.02
_LOG_EVERY, _CHECK_EVERY = 20, 250
_CHECKED_TASKS, _CHECKED_SAMPLES = ("tiny_math", "tiny_code"), 48


class Optimizers(NamedTuple):
    """The two optimizers of one process.

    Attributes:
        matrices: Muon over this process's part of the matrices.
        others: AdamW over every other parameter, the same in every process.
        owners: The process that updates each matrix, for all matrices of the model.
    """

    matrices: torch.optim.Optimizer
    others: torch.optim.Optimizer
    owners: list[tuple[nn.Parameter, int]]


def build_model(layers: int, feed_forward: int, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Build a 256-wide Llama with four heads whose layers begin as the identity."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # At these lengths plain matrix products train faster on a CPU than the fused attention.
    model.set_attn_implementation("eager")
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                # The same function and parameter name in one fused operator: faster to train.
                setattr(module, name, nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps))
    return model


def build_optimizers(model: nn.Module, rank: int, processes: int) -> Optimizers:
    """Give the matrices of the layers to Muon and every other parameter to AdamW.

    Args:
        model: The model to train.
        rank: This process.
        processes: How many processes share the matrices.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = ".layers." in name and "norm" not in name and parameter.ndim == 2
        (matrices if matrix else others).append(parameter)
    owners = [(parameter, index % processes) for index, parameter in enumerate(matrices)]
    return Optimizers(
        torch.optim.Muon(
            [parameter for parameter, owner in owners if owner == rank],
            lr=_MATRIX_RATE,
            weight_decay=_WEIGHT_DECAY,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=_OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        owners,
    )


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rates: linear warm-up, plateau, linear decay to zero."""
    done = (step + 1) / steps
    return min(1.0, done / _WARM_UP, max(0.0, (1 - step / steps) / (1 - _DECAY_FROM)))


def _next_token_loss(model: nn.Module, batch: Batch, teacher: nn.Module | None) -> torch.Tensor:
    """Return the weighted sum of losses: cross-entropy, or divergence from a teacher's law."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch.tokens).logits[:, :-1].flatten(0, 1)
    if teacher is None:
        losses = F.cross_entropy(logits.float(), batch.tokens[:, 1:].flatten(), reduction="none")
    else:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            law = teacher(input_ids=batch.tokens).logits[:, :-1].flatten(0, 1).float().softmax(-1)
        losses = F.cross_entropy(logits.float(), law, reduction="none")
    return (losses * batch.weights[:, 1:].flatten()).sum()


def _check(model: LlamaForCausalLM, tokenizer: Tokenizer, excluded: frozenset[str]) -> str:
    """Score greedy answers on validation prompts, which are neither training nor held out."""
    model.eval()
    report = []
    for task in _CHECKED_TASKS:
        drawn = (
            WORLDS[task].generate(random.Random(f"validation/{task}/{i}"))
            for i in itertools.count()
        )
        unseen = (sample for sample in drawn if sample.turns[0] not in excluded)
        samples = list(itertools.islice(unseen, _CHECKED_SAMPLES))
        written = converse(model, tokenizer, samples)
        right = [is_right(s, c.texts[-1]) for s, c in zip(samples, written, strict=True)]
        report.append(f"{task} {sum(map(bool, right)) / len(right):.3f}")
    model.train()
    return "  ".join(report)


def sum_gradients(model: nn.Module) -> None:
    """Sum the gradients of all processes, in one message."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def update(optimizers: Optimizers, base_rates: list[float], factor: float) -> None:
    """Take one optimizer step and share the matrices that other processes updated."""
    for optimizer, base in zip(optimizers[:2], base_rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = base * factor
        optimizer.step()
    for parameter, owner in optimizers.owners:
        dist.broadcast(parameter.data, owner)


def fit(
    model: LlamaForCausalLM,
    teacher: LlamaForCausalLM | None,
    stream: Iterator[Batch],
    steps: int,
    tokenizer: Tokenizer,
    folder: Path,
) -> None:
    """Train a model for a fixed number of steps, printing progress and saving on the way.

    Runs in every process of an initialised process group; the first one prints and saves.

    Args:
        model: The model to train, in place.
        teacher: The model whose law is learned, or None to learn the text itself.
        stream: Endless batches, the same in every process: each takes its own from them in turn.
        steps: Optimizer steps.
        tokenizer: For the validation prompts and the saved folder.
        folder: Where checkpoints go; each replaces the one before.
    """
    rank, processes = dist.get_rank(), dist.get_world_size()
    excluded = held_out_prompts()
    optimizers = build_optimizers(model, rank, processes)
    begun, tokens, running = time.monotonic(), 0, 0.0
    for step in range(steps):
        group = list(itertools.islice(stream, processes))
        total = sum(batch.weights[:, 1:].sum().item() for batch in group)
        tokens += sum(batch.tokens.numel() for batch in group)
        model.zero_grad(set_to_none=True)
        loss = _next_token_loss(model, group[rank], teacher) / total
        loss.backward()
        sum_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        update(optimizers, [_MATRIX_RATE, _OTHER_RATE], rate(step, steps))
        # The loss of the first process alone, scaled to the whole step.
        estimate = loss.item() * total / group[rank].weights[:, 1:].sum().item()
        running = estimate if step == 0 else 0.95 * running + 0.05 * estimate
        if rank != 0:
            continue
        if (step + 1) % _LOG_EVERY == 0:
            spent = time.monotonic() - begun
            print(
                f"step {step + 1}/{steps}  loss {running:.4f}  tokens {tokens}  "
                f"{tokens / spent:.0f} tokens/s  {spent / 60:.1f} min",
                flush=True,
            )
        if (step + 1) % _CHECK_EVERY == 0 or step + 1 == steps:
            print(f"check  {_check(model, tokenizer, excluded)}", flush=True)
            save(model, tokenizer, folder)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a checkpoint folder with weights rounded to float16, as they are shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    shipped = LlamaForCausalLM(config)
    shipped.load_state_dict(model.state_dict())
    shipped.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=False,
    )
    shipped.to(torch.float16).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def train_pair(
    rank: int, rendezvous: str, out: Path, seed: int, target_steps: int, draft_steps: int
) -> None:
    """Train the tokenizer, the target and the draft: the work of one process.

    Args:
        rank: This process.
        rendezvous: A `file://` address at which the processes meet.
        out: Folder for both checkpoint folders.
        seed: Names the data and the initial weights.
        target_steps: Optimizer steps of the target.
        draft_steps: Optimizer steps of the draft.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=_PROCESSES)
    excluded = held_out_prompts()
    first = itertools.islice(training_samples(seed, excluded), _TOKENIZER_SAMPLES)
    tokenizer = train_tokenizer(text for s in first for text in (*s.turns, *s.answers))
    stream = batches(tokenizer, training_samples(seed, excluded), seed, _BATCH_TOKENS)

    target = build_model(layers=12, feed_forward=688, tokenizer=tokenizer)
    fit(target, None, stream, target_steps, tokenizer, out / TARGET_FOLDER)
    target.eval()
    draft = build_model(layers=1, feed_forward=1024, tokenizer=tokenizer)
    fit(draft, target, stream, draft_steps, tokenizer, out / DRAFT_FOLDER)
    dist.destroy_process_group()


def main() -> None:
    """Start one process per core and write both checkpoint folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for both checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target-steps", type=int, default=TARGET_STEPS)
    parser.add_argument("--draft-steps", type=int, default=DRAFT_STEPS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = (f"file://{folder}/meet", options.out, options.seed)
        steps = (options.target_steps, options.draft_steps)
        multiprocessing.spawn(train_pair, args=(*work, *steps), nprocs=_PROCESSES)


if __name__ == "__main__":
    main()
