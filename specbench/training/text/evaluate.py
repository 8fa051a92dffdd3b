"""Score a trained pair on the held-out prompts (`python -m specbench.training.text.evaluate`).

Decoding here is plain and batched, through transformers alone: the numbers of `docs/zoo.md` do not
depend on the decoders that this project measures.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from specbench.paths import weights_dir
from specbench.zoo.held_out import held_out_samples
from specbench.zoo.worlds import WORLDS, Sample

MAX_NEW_TOKENS = 160
_CODE_TIMEOUT_SECONDS = 10.0
TARGET_FOLDER, DRAFT_FOLDER = "tiny_text_target", "tiny_text_draft"


class Conversation(NamedTuple):
    """What a model wrote: per turn the prompt's tokens and the answer's, end token included."""

    prompts: list[list[int]]
    answers: list[list[int]]
    texts: list[str]


class TaskScore(NamedTuple):
    """The scores of one task.

    Attributes:
        quality: Fraction of right answers, or None where no answer is right alone.
        entropy: Mean entropy of the target's law at temperature 1 along its answers, in nats.
        acceptance: Fraction of the target's greedy tokens that are also the draft's argmax.
        answer_tokens: Mean tokens of an answer, end token included.
    """

    quality: float | None
    entropy: float
    acceptance: float | None
    answer_tokens: float


def load(folder: Path) -> PreTrainedModel:
    """Load a checkpoint folder for computing in float32."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    )
    return model.eval()


@torch.no_grad()
def _greedy(
    model: PreTrainedModel, tokenizer: Tokenizer, prompts: Sequence[list[int]]
) -> list[list[int]]:
    width = max(len(prompt) for prompt in prompts)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    tokens = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    written = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        pad_token_id=pad,
        eos_token_id=end,
    )[:, width:].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in written]


def converse(
    model: PreTrainedModel, tokenizer: Tokenizer, samples: Sequence[Sample]
) -> list[Conversation]:
    """Answer every turn of every sample greedily; a turn sees the model's own earlier answers."""
    conversations = [Conversation([], [], []) for _ in samples]
    for turn in range(max(len(sample.turns) for sample in samples)):
        active = [i for i, sample in enumerate(samples) if turn < len(sample.turns)]
        for i in active:
            messages = []
            for index, text in enumerate(samples[i].turns[: turn + 1]):
                messages.append({"role": "user", "content": text})
                if index < turn:
                    messages.append({"role": "assistant", "content": conversations[i].texts[index]})
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
            conversations[i].prompts.append(prompt)
        answers = _greedy(model, tokenizer, [conversations[i].prompts[turn] for i in active])
        for i, answer in zip(active, answers, strict=True):
            conversations[i].answers.append(answer)
            conversations[i].texts.append(tokenizer.decode(answer, skip_special_tokens=True))
    return conversations


def _passes(program: str) -> bool:
    """Run a program in a process of its own; only for what the embedded pair writes."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            finished = subprocess.run(
                [sys.executable, "-I", "-c", program],
                cwd=folder,
                env={},
                capture_output=True,
                timeout=_CODE_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return finished.returncode == 0


def is_right(sample: Sample, text: str) -> bool | None:
    """Score one answer against the sample's reference; None where there is no reference."""
    reference = sample.reference
    if reference is None:
        return None
    if isinstance(reference, dict):
        call = f"check({reference['entry_point']})\n"
        return _passes(f"{reference['prefix']}{text}\n{reference['test']}\n{call}")
    final = re.search(r"#### (-?\d+)\s*$", text)
    return (final.group(1) if final else text.strip()) == reference


@torch.no_grad()
def _law_along(model: PreTrainedModel, conversations: Sequence[Conversation]) -> list[torch.Tensor]:
    """Return the logits at every answer position of every turn, each (tokens, vocabulary)."""
    laws = []
    for conversation in conversations:
        for prompt, answer in zip(conversation.prompts, conversation.answers, strict=True):
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
            laws.append(logits[len(prompt) - 1 : -1].float())
    return laws


def score(
    target: PreTrainedModel,
    draft: PreTrainedModel | None,
    tokenizer: Tokenizer,
    samples: Sequence[Sample],
) -> TaskScore:
    """Score the target, and the draft against it, on samples of one task."""
    conversations = converse(target, tokenizer, samples)
    marks = [
        is_right(sample, conversation.texts[-1])
        for sample, conversation in zip(samples, conversations, strict=True)
    ]
    known = [mark for mark in marks if mark is not None]
    laws = torch.cat(_law_along(target, conversations)).log_softmax(-1)
    answers = [answer for conversation in conversations for answer in conversation.answers]
    acceptance = None
    if draft is not None:
        guesses = torch.cat(_law_along(draft, conversations)).argmax(-1)
        written = torch.tensor([token for answer in answers for token in answer])
        acceptance = (guesses == written).double().mean().item()
    return TaskScore(
        quality=sum(known) / len(known) if known else None,
        entropy=-(laws.exp() * laws).sum(-1).mean().item(),
        acceptance=acceptance,
        answer_tokens=sum(map(len, answers)) / len(answers),
    )


def main() -> None:
    """Print one line per task: quality of target and draft, entropy, acceptance, length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=weights_dir())
    folder: Path = parser.parse_args().folder
    tokenizer = AutoTokenizer.from_pretrained(folder / TARGET_FOLDER, trust_remote_code=False)
    target, draft = load(folder / TARGET_FOLDER), load(folder / DRAFT_FOLDER)
    print("task            right  right (draft)  entropy  acceptance  tokens")
    for task in WORLDS:
        samples = held_out_samples(task)
        pair = score(target, draft, tokenizer, samples)
        alone = score(draft, None, tokenizer, samples)
        right = ["-" if q is None else f"{q:.3f}" for q in (pair.quality, alone.quality)]
        print(
            f"{task:<15} {right[0]:>5}  {right[1]:>13}  {pair.entropy:7.3f}  "
            f"{pair.acceptance:10.3f}  {pair.answer_tokens:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
