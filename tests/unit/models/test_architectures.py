"""Every architecture on the page of models: its own module's law, in chains, trees and rollback."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.tree import TreeMask
from specbench.law import Law
from specbench.models.base import Capability, View
from specbench.models.pair import ModelPair
from tests.unit.decoding.parts import Autoregressive, generate, token_sd
from tests.unit.models.architectures import CASES, VOCAB, model_of, module_of

PROMPT = 24
NEW = 8
TREE = (-1, -1, 0, 0, 1, 2, 4, 4)
"""Parents of a tree's nodes below the prompt's last token."""


def tokens_of(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCAB, (count,), generator=generator).tolist()


def law_of(module, texts):
    """Return the module's logits behind each text, without any cache.

    Texts of one length share a forward: only the length moves the frequencies of longrope.
    """
    found = {}
    with torch.inference_mode():
        for length in {len(text) for text in texts}:
            batch = [index for index, text in enumerate(texts) if len(text) == length]
            logits = module(torch.tensor([texts[index] for index in batch])).logits[:, -1]
            found |= dict(zip(batch, logits, strict=True))
    return torch.stack([found[index] for index in range(len(texts))])


def close(got, expected):
    scale = float(expected.std())
    torch.testing.assert_close(got / scale, expected / scale, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request):
    return request.param, module_of(CASES[request.param]), model_of(CASES[request.param])


def test_chunks_and_rollback_keep_the_modules_law(case):
    _, module, model = case
    text = tokens_of(PROMPT + 12)
    cache = model.new_cache(1, 64)
    got = [model.forward(torch.tensor([text[:PROMPT]]), cache)[0, -1:]]
    model.forward(torch.tensor([[text[PROMPT], 5, 6, 7]]), cache)
    cache.truncate([PROMPT + 1])
    for start, end in ((1, 2), (2, 6), (6, 7)):
        got.append(model.forward(torch.tensor([text[PROMPT + start : PROMPT + end]]), cache)[0])
    for wrong in (8, 9, 10):
        model.forward(torch.tensor([[wrong]]), cache)
    cache.truncate([PROMPT + 4])
    got.append(model.forward(torch.tensor([text[PROMPT + 4 :]]), cache)[0])
    ends = [0, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10, 11, 12]
    close(torch.cat(got), law_of(module, [text[: PROMPT + end] for end in ends]))


def test_trees_keep_the_modules_law(case):
    _, module, model = case
    if Capability.TREE_MASK not in model.capabilities:
        pytest.skip("it offers no trees, and is refused where a method needs them")
    text, nodes = tokens_of(PROMPT), tokens_of(len(TREE), seed=3)
    cache = model.new_cache(1, 64)
    model.forward(torch.tensor([text[:-1]]), cache)
    mask = TreeMask.from_parents(TREE)
    got = model.forward(torch.tensor([text[-1:] + nodes]), cache, View(mask=mask))[0, 1:]
    paths = []
    for node, parent in enumerate(TREE):
        paths.append([*(paths[parent] if parent >= 0 else []), nodes[node]])
    close(got, law_of(module, [text + path for path in paths]))
    cache.keep([PROMPT - 1], [[0, 2, 5, 8]])
    kept = text + paths[7]
    close(model.forward(torch.tensor([[9]]), cache)[0], law_of(module, [[*kept, 9]]))


def test_drafted_tokens_are_those_of_plain_decoding_and_of_transformers(case):
    name, module, model = case
    prompt = tuple(tokens_of(PROMPT, seed=2))
    law = Law(temperature=0)
    pair = ModelPair(name, model, model_of(CASES[name]))
    plain = generate(Autoregressive(), pair, law, prompt, NEW).tokens
    assert generate(token_sd(4), pair, law, prompt, NEW).tokens == plain
    if name == "llama-longrope":
        return  # transformers keeps keys of the short frequencies when a text has grown long
    with torch.inference_mode():
        theirs = module.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, PROMPT, dtype=torch.long),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert theirs[0, PROMPT:].tolist() == list(plain)
