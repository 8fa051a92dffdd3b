"""The tokenizer of the embedded text pair: byte-level BPE in which every digit is one token.

Prompt and answer are always separated by a special token, and special tokens split the text before
any merge. Hence no merge crosses their boundary, and a prompt has the same tokens in training,
where its answer follows, and in use, where nothing does.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from specbench.zoo.worlds import Sample

VOCABULARY_SIZE = 2048
PAD, BEGIN, USER, ASSISTANT, END = ("<|pad|>", "<|begin|>", "<|user|>", "<|assistant|>", "<|end|>")

CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% else %}{{ raise_exception('Only user and assistant messages are supported.') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Indentation before a word, a word with its leading space, one digit, a line break with the
# indentation that follows it, a run of marks.
_PIECES = r" +(?= )| ?[A-Za-z_]+|[0-9]|\n *| ?[^\sA-Za-z0-9_]+|\s"


class Segment(NamedTuple):
    """A stretch of a training text.

    Attributes:
        text: The text, special tokens included.
        learned: Whether the model is to learn to write it (an answer with its end token).
    """

    text: str
    learned: bool


def segments(sample: Sample) -> list[Segment]:
    """Split a conversation into prompts and answers, exactly as the chat template writes it."""
    parts = []
    for index, (turn, answer) in enumerate(zip(sample.turns, sample.answers, strict=True)):
        opening = BEGIN if index == 0 else ""
        parts.append(Segment(f"{opening}{USER}{turn}{ASSISTANT}", False))
        parts.append(Segment(f"{answer}{END}", True))
    return parts


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the merges from plain texts and wrap them for transformers.

    Args:
        texts: Prompts and answers without special tokens.

    Returns:
        A tokenizer with the special tokens, the chat template and at most 2,048 tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BEGIN, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=20,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`, the chat template inside the latter."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
