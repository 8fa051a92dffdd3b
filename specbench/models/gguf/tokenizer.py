"""A GGUF file's vocabulary as the files of a published tokenizer.

The metadata hold tokens, merges and the name of a pre-tokenizer; how text is split before it is
merged is known by that name alone (llama.cpp, src/llama-vocab.cpp), and follows here the
tokenizer.json that the models' authors publish. A name that is not known is refused: a wrong split
gives other ids on digits, contractions or blanks, and a model that reads badly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers import pre_tokenizers as splits
from tokenizers.models import BPE

from specbench.models.gguf.families import unknown
from specbench.models.gguf.header import Header

_CONTROL, _USER = 3, 4
_NORMAL = (1, 2, 5, 6)
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of Llama 3 and Qwen 2; they differ in how many digits stay together."""

_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_ENDS = ("eos", "eot", "eom")


def _words(digits: int) -> splits.PreTokenizer:
    pattern = splits.Split(Regex(_WORDS % digits), "isolated")
    return splits.Sequence([pattern, splits.ByteLevel(add_prefix_space=False, use_regex=False)])


def _pre_tokenizer(name: str) -> splits.PreTokenizer | None:
    gpt2 = splits.ByteLevel(add_prefix_space=False)
    if name == "smollm":
        return splits.Sequence([splits.Digits(individual_digits=True), gpt2])
    if name == "gpt-2":
        return gpt2
    if name in ("llama-bpe", "llama3"):
        return _words(3)
    return _words(1) if name == "qwen2" else None


def tokenizer_files(header: Header, context: int) -> dict[str, Any]:
    """Return tokenizer.json, tokenizer_config.json and generation_config.json as JSON values.

    Args:
        header: The file.
        context: Tokens that the model takes.

    Raises:
        ModelError: If the vocabulary is damaged or of a kind that is not known for certain.
    """
    about = _About(header)
    tokens = about.texts("tokens")
    kinds = header.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise unknown(header, "its tokens and their types differ in number")
    if len(set(tokens)) < len(tokens) or not set(kinds) <= {*_NORMAL, _CONTROL, _USER}:
        raise unknown(header, "a token is there twice, or of a type that is not known")
    rows = header.tensors["token_embd.weight"].shape[0]
    if len(tokens) > rows:
        raise unknown(header, f"it has {len(tokens):,} tokens and embeds {rows:,}")
    tokenizer = _byte_pairs(about, tokens)
    added = {
        number: AddedToken(tokens[number], special=kind == _CONTROL, normalized=False)
        for number, kind in enumerate(kinds)
        if kind in (_CONTROL, _USER)
    }
    tokenizer.add_tokens(list(added.values()))
    ids = {role: about.token(name, len(tokens)) for role, name in _ROLES.items()}
    begin = ids["bos"] if about.flag("add_bos_token") else None
    end = ids["eos"] if about.flag("add_eos_token") else None
    tokenizer.post_processor = _around(tokens, begin, end)
    named = {f"{role}_token": None if i is None else tokens[i] for role, i in ids.items()}
    ends = [about.token(name, len(tokens)) for name in _ENDS]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(number): {
                "content": token.content,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": token.special,
            }
            for number, token in added.items()
        },
        **named,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    template = header.metadata.get("tokenizer.chat_template")
    if template is not None:
        if not isinstance(template, str):
            raise unknown(header, "its chat template is no text")
        config["chat_template"] = template
    generation = {
        "bos_token_id": ids["bos"],
        "eos_token_id": sorted({i for i in ends if i is not None}) or None,
        "pad_token_id": ids["pad"],
    }
    return {
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": config,
        "generation_config.json": {k: v for k, v in generation.items() if v is not None},
    }


class _About:
    """The metadata of a vocabulary."""

    def __init__(self, header: Header) -> None:
        self.header = header

    def texts(self, key: str) -> list[str]:
        """Return a list of texts.

        Raises:
            ModelError: If it is none.
        """
        found = self.header.metadata.get(f"tokenizer.ggml.{key}")
        if not isinstance(found, list) or not found or not all(type(x) is str for x in found):
            raise unknown(self.header, f"tokenizer.ggml.{key} is no list of texts")
        return found

    def token(self, role: str, count: int) -> int | None:
        """Return the id of a role; None where it has none."""
        found = self.header.metadata.get(f"tokenizer.ggml.{role}_token_id")
        if found is not None and (type(found) is not int or not 0 <= found < count):
            raise unknown(self.header, f"its {role} token is {str(found)[:80]}")
        return found

    def flag(self, key: str) -> bool:
        """Return a switch that may be missing."""
        found = self.header.metadata.get(f"tokenizer.ggml.{key}")
        if found is None and key == "add_bos_token":
            return self.pre in ("llama-bpe", "llama3")  # as llama.cpp takes it
        return found is True

    @property
    def pre(self) -> str:
        """The pre-tokenizer's name."""
        return str(self.header.metadata.get("tokenizer.ggml.pre"))[:80]


def _byte_pairs(about: _About, tokens: Sequence[str]) -> Tokenizer:
    header = about.header
    kind = header.metadata.get("tokenizer.ggml.model")
    pre = _pre_tokenizer(about.pre)
    if kind != "gpt2" or pre is None:
        raise unknown(
            header,
            f"its tokenizer is {str(kind)[:80]!r} with the pre-tokenizer '{about.pre}'; known for "
            "certain are 'gpt2' with smollm, gpt-2, llama-bpe and qwen2",
        )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = []
    for merge in about.texts("merges"):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise unknown(header, f"the merge {merge[:80]!r} is not of its tokens")
        merges.append((left, right))
    whole = about.pre in ("llama-bpe", "llama3")
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=whole))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    if about.pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _around(tokens: Sequence[str], begin: int | None, end: int | None) -> Any:
    """Return what puts tokens before and behind a text."""
    level = processors.ByteLevel(trim_offsets=False)
    around = [i for i in (begin, end) if i is not None]
    if not around:
        return level

    def frame(text: str) -> list[str]:
        before = [] if begin is None else [tokens[begin]]
        return [*before, text, *([] if end is None else [tokens[end]])]

    special = [(tokens[i], i) for i in dict.fromkeys(around)]
    template = processors.TemplateProcessing(
        single=frame("$A"), pair=frame("$A") + frame("$B:1"), special_tokens=special
    )
    return processors.Sequence([level, template])
