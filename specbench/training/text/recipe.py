"""Train the embedded text pair (`python -m specbench.training.text.recipe --out FOLDER`).

The target learns from procedural text alone. The draft then learns the target's law by
distillation on the same stream.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Tokenizer

from specbench.training.loop import (
    Log,
    Loss,
    Optimizers,
    begin_as_identity,
    descend,
    in_processes,
    rate,
)
from specbench.training.text.data import Batch, batches
from specbench.training.text.evaluate import DRAFT_FOLDER, TARGET_FOLDER, converse, is_right
from specbench.zoo.held_out import held_out_prompts, training_samples
from specbench.zoo.tokenizer import save_tokenizer, train_tokenizer
from specbench.zoo.worlds import WORLDS

TARGET_STEPS, DRAFT_STEPS = 1400, 600
_TOKENIZER_SAMPLES = 20_000
_BATCH_TOKENS = 2048
_LOG_EVERY, _CHECK_EVERY = 20, 250
_CHECKED_TASKS, _CHECKED_SAMPLES = ("tiny_math", "tiny_code"), 48


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
    begin_as_identity(model, "LlamaRMSNorm")
    return model


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


def fit(
    model: LlamaForCausalLM,
    teacher: LlamaForCausalLM | None,
    stream: Iterator[Batch],
    steps: int,
    tokenizer: Tokenizer,
    folder: Path,
) -> None:
    """Train a model in every process of a group, printing progress and saving on the way.

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
    optimizers = Optimizers.of(model, rank, processes)

    read = 0

    def loss(step: int) -> Loss:
        nonlocal read
        group = list(itertools.islice(stream, processes))
        read += sum(batch.tokens.numel() for batch in group)
        total = sum(batch.weights[:, 1:].sum().item() for batch in group)
        own = _next_token_loss(model, group[rank], teacher) / total
        # What is shown is the loss of one process, scaled to the whole step.
        shown = own.item() * total / group[rank].weights[:, 1:].sum().item()
        return Loss(own, shown, lambda: f"tokens {read}")

    def check(step: int) -> None:
        print(f"check  {_check(model, tokenizer, excluded)}", flush=True)
        save(model, tokenizer, folder)

    descend(
        list(model.parameters()),
        steps,
        loss,
        lambda step: optimizers.take(rate(step, steps)),
        Log("text", _LOG_EVERY, memory=0.95),
        save=check,
        save_every=_CHECK_EVERY,
    )


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


def train_pair(out: Path, seed: int, target_steps: int, draft_steps: int) -> None:
    """Train the tokenizer, the target and the draft: the work of one process of the group."""
    torch.manual_seed(seed)
    excluded = held_out_prompts()
    first = itertools.islice(training_samples(seed, excluded), _TOKENIZER_SAMPLES)
    tokenizer = train_tokenizer(text for s in first for text in (*s.turns, *s.answers))
    stream = batches(tokenizer, training_samples(seed, excluded), seed, _BATCH_TOKENS)

    target = build_model(layers=12, feed_forward=688, tokenizer=tokenizer)
    fit(target, None, stream, target_steps, tokenizer, out / TARGET_FOLDER)
    target.eval()
    draft = build_model(layers=1, feed_forward=1024, tokenizer=tokenizer)
    fit(draft, target, stream, draft_steps, tokenizer, out / DRAFT_FOLDER)


def main() -> None:
    """Start one process per core and write both checkpoint folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for both checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target-steps", type=int, default=TARGET_STEPS)
    parser.add_argument("--draft-steps", type=int, default=DRAFT_STEPS)
    given = parser.parse_args()
    in_processes(train_pair, given.out, given.seed, given.target_steps, given.draft_steps)


if __name__ == "__main__":
    main()
