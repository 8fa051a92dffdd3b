"""Ids of a converted vocabulary are those of byte-pair encoding done by hand."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import regex
from transformers import AutoTokenizer

from specbench.models.gguf.convert import convert
from specbench.models.packaged import Packaged
from specbench.schema import catalog
from tests.unit.models import gguf_files as files

AWKWARD = [
    "",
    "12 plus 1234567890 is 3.14159e-10",
    "  two blanks before, and behind  ",
    "the\n\nlines\n\n\n  and\ttabs\r\n",
    "def f(x_1):\n    return x_1**2  # it's\n",
    "naïve café, “quoted” — and … dots",
    "日本語のテキスト 中文字符 한국어 العربية עברית हिन्दी ภาษาไทย",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🙂🙂 ½ ² Ⅷ ٣٤ １２",
    "<|im_start|>user\nIgnore <|im_end|> this<|endoftext|> <|im_end",
    "I'll we've DON'T 's 'S can't they're 'tis",
    "a b\u3000c\u200bd\ufeffe \u0301f",
    "$$\\frac{1}{2}$$ https://a.b/c?d=e&f=10%20",
    "\x00\x01\x7f\x80\uffff",
    "1 2 3\n4  5\n 6",
]
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class ByHand:
    """Byte-pair encoding in a few lines: split, then merge the pair of the lowest rank."""

    def __init__(self, tokens, merges, special, digits=True):
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        self.special = regex.compile(
            "(" + "|".join(map(regex.escape, sorted(special, key=len, reverse=True))) + ")"
        )
        self.digits = digits
        self.letters = files.byte_letters()

    def encode(self, text):
        found = []
        for part in self.special.split(text):
            if self.special.fullmatch(part):
                found.append(self.ids[part])
                continue
            pieces = regex.findall(r"\p{N}|\P{N}+", part) if self.digits else [part]
            for piece in pieces:
                for word in regex.findall(GPT2, piece):
                    found += self.word("".join(self.letters[b] for b in word.encode()))
        return found

    def word(self, letters):
        parts = list(letters)
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:], strict=False))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            place = pairs.index(best)
            parts[place : place + 2] = ["".join(best)]
        return [self.ids[part] for part in parts]


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))

    def convert_with(merges=(), **changes):
        fields = files.metadata(**changes)
        fields["tokenizer.ggml.tokens"] += [merge.replace(" ", "") for merge in merges]
        fields["tokenizer.ggml.token_type"] += [1] * len(merges)
        fields["tokenizer.ggml.merges"] = [*files.MERGES, *merges]
        rows = np.ones((len(fields["tokenizer.ggml.tokens"]), files.HIDDEN), np.float32)
        tensors = files.model()[0] | {"token_embd.weight": files.plain(rows)}
        path = files.written(tmp_path / "a.gguf", fields, tensors)
        return AutoTokenizer.from_pretrained(convert(path))

    return convert_with


@pytest.mark.parametrize("pre", ["smollm", "gpt-2"])
def test_a_small_vocabulary_reads_as_by_hand(small, pre):
    tokenizer = small(tokenizer__ggml__pre=pre)
    by_hand = ByHand(files.vocabulary(), files.MERGES, files.SPECIAL, digits=pre == "smollm")
    for text in AWKWARD:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == by_hand.encode(text), text
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    twelve = [by_hand.ids[letter] for letter in "12"]
    assert tokenizer.encode("12") == (twelve if pre == "smollm" else [by_hand.ids["12"]])


def test_roles_template_and_tokens_around_a_text(small):
    tokenizer = small()
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.pad_token_id == 2 and tokenizer.unk_token_id == 0
    messages = [{"role": "user", "content": "1"}]
    said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert said == "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n"
    assert small(tokenizer__ggml__add_bos_token=True).encode("1")[0] == 1


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2"])
def test_the_patterns_of_other_families_split_digits_as_they_do(small, pre):
    tokenizer = small(["12 3", "123 4"], tokenizer__ggml__pre=pre)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("1234", add_special_tokens=False))
    assert pieces == (["123", "4"] if pre == "llama-bpe" else ["1", "2", "3", "4"])


def smollm2():
    """Return the converted model and its vocabulary, where it was fetched."""
    entry = catalog.load("model", "smollm2_135m")
    folder = Packaged.of(entry["target"], entry["target_revision"]).folder
    if not folder.is_dir():
        pytest.skip("smollm2_135m is not fetched")
    about = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = about["model"]["vocab"]
    merges = [" ".join(merge) for merge in about["model"]["merges"]]
    special = [token["content"] for token in about["added_tokens"]]
    by_hand = ByHand(sorted(vocabulary, key=vocabulary.get), merges, special)
    return AutoTokenizer.from_pretrained(folder), by_hand


def test_awkward_texts_read_as_by_hand():
    tokenizer, by_hand = smollm2()
    for text in AWKWARD:
        assert tokenizer.encode(text, add_special_tokens=False) == by_hand.encode(text), text


@pytest.mark.parametrize("file", ["gsm8k_test.jsonl", "HumanEval.jsonl.gz"])
def test_prompts_of_benchmarks_read_as_by_hand(shared_data, file):
    tokenizer, by_hand = smollm2()
    opened = gzip.open if file.endswith(".gz") else open
    with opened(shared_data / file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][:164]
    for row in rows:
        text = row.get("question") or row["prompt"]
        assert tokenizer.encode(text, add_special_tokens=False) == by_hand.encode(text), text


def test_the_default_system_prompt_stands_before_a_conversation():
    tokenizer, _ = smollm2()
    messages = [{"role": "user", "content": "Hi"}]
    said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert said == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
