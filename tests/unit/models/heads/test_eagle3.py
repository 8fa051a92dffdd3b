"""EAGLE-3's head in the three published layouts, with every flag that changes its arithmetic."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from specbench.errors import ModelError
from specbench.models.base import Taps, View
from specbench.models.heads.load import find_head, load_head
from specbench.models.load import load_pair
from tests.unit.models import tiny_checkpoints
from tests.unit.models.heads import published
from tests.unit.models.heads.published import (
    DRAFT_VOCAB,
    EAGLE3_CONFIG,
    SPECULATORS_CONFIG,
    VOCAB,
    WIDTH,
    rms,
)
from tests.unit.models.heads.test_eagle import entry

SPECFORGE = {**EAGLE3_CONFIG, "architectures": ["LlamaForCausalLMEagle3"]}
LAYERS = 3
IDS = {"eagle_aux_hidden_state_layer_ids": [0, 1, 2]}
COUNT = 6


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tiny_checkpoints.write(tmp_path_factory.mktemp("target"), "llama")


def loaded(target, folder):
    config = entry(target, folder)
    models = load_pair(config, needs=frozenset())
    return load_head(find_head(config), models.target)


def norms(count, *sizes):
    draw = torch.Generator().manual_seed(9)
    return [1 + 0.3 * torch.randn(size, generator=draw) for size in sizes][:count]


CASES = {
    "release": ({**EAGLE3_CONFIG, "eagle_config": IDS}, {}),
    "specforge": ({**SPECFORGE, "eagle_config": IDS}, {}),
    "specforge, fc_norm": ({**SPECFORGE, "eagle_config": IDS, "fc_norm": True}, {}),
    "specforge, bare logits": ({**SPECFORGE, "eagle_config": IDS, "norm_output": False}, {}),
    "speculators": (SPECULATORS_CONFIG, {}),
    "speculators, norm_before_residual": (SPECULATORS_CONFIG, {"norm_before_residual": True}),
    "speculators, norm_before_fc": (SPECULATORS_CONFIG, {"norm_before_fc": True}),
    "speculators, fc_norm": (SPECULATORS_CONFIG, {"fc_norm": True}),
    "speculators, norm_output": (SPECULATORS_CONFIG, {"norm_output": True}),
    "speculators, two blocks": (SPECULATORS_CONFIG, {"layers": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_published_arithmetic(target, tmp_path, case):
    """Three true entries, then three behind what the head made, each one forward."""
    config, flags = CASES[case]
    spec = "speculators_model_type" in config
    flags = dict(flags)
    layers = flags.pop("layers", 1)
    config = {**config, **flags}
    if spec:  # blocks are named before they run
        config["eagle_aux_hidden_state_layer_ids"] = [1, 2, 3]
        inner = {**config["transformer_layer_config"], "num_hidden_layers": layers}
        config["transformer_layer_config"] = inner
    first = "layers.0." if spec else "midlayer."
    tensors = published.eagle3_tensors(first)
    draw = torch.Generator().manual_seed(5)
    if layers == 2:
        tensors |= published.block("layers.1.", WIDTH, draw)
        tensors["layers.1.input_layernorm.weight"] = norms(1, WIDTH)[0]
    if config.get("norm_before_fc"):
        tensors["input_norm.weight"] = norms(1, 3 * WIDTH)[0]
    if config.get("fc_norm"):
        named = zip(range(3), norms(3, WIDTH, WIDTH, WIDTH), strict=True)
        tensors |= {f"fc_norm.{index}.weight": weight for index, weight in named}
    head = loaded(target, published.write(tmp_path, config, tensors))
    assert head.taps == (0, 1, 2)

    tokens = torch.randint(0, VOCAB, (COUNT,), generator=draw)
    states = [torch.randn(3, WIDTH, generator=draw) for _ in range(3)]
    cache, taps = head.new_cache(1, 64), Taps((head.made,))
    feature = head.features(tuple(state[None] for state in states))
    logits = []
    for at in (slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 6)):
        inputs = head.inputs(tokens[None, at], feature)
        logits.append(head.forward(inputs, cache, View(taps=taps))[0])
        feature = taps.states[0][:, -1:]
    ours = torch.cat(logits).double()

    # The same by hand, from the first entry on in every step.
    t = published.doubled(tensors)
    embedding = load_file(target / "model.safetensors")["model.embed_tokens.weight"].double()
    given = [state.double() for state in states]
    if config.get("fc_norm"):
        given = [rms(state, t[f"fc_norm.{index}.weight"]) for index, state in enumerate(given)]
    joined = torch.cat(given, -1)
    if config.get("norm_before_fc"):
        joined = rms(joined, t["input_norm.weight"])
    features = joined @ t["fc.weight"].T
    residual = bool(config.get("norm_before_residual"))
    for count in range(3, COUNT + 1):
        sees, positions = torch.ones(count, count).tril().bool(), torch.arange(count)
        x = published.eagle3_entry(
            t, first, embedding[tokens[:count]], features, positions, sees, residual
        )
        if layers == 2:
            read = rms(x, t["layers.1.input_layernorm.weight"])
            x = x + published.attention(t, "layers.1.", read, positions, sees, 5000.0)
            x = published.feed_forward(t, "layers.1.", x)
        normed = rms(x, t["norm.weight"])
        back = normed if spec and config.get("norm_output") else x
        features = torch.cat([features, back[-1:]])
    bare = not spec and config.get("norm_output") is False
    expected = (x if bare else normed) @ t["lm_head.weight"].T
    known = tensors["d2t"] + torch.arange(DRAFT_VOCAB)
    torch.testing.assert_close(ours[:, known], expected, rtol=1e-4, atol=1e-4)
    unknown = [index for index in range(VOCAB) if index not in known.tolist()]
    assert ours[:, unknown].eq(-torch.inf).all()
    assert ours.softmax(-1).sum(-1).allclose(torch.ones(COUNT, dtype=torch.float64))


def test_layers_by_default_are_the_releases(target, tmp_path):
    """Of twelve blocks: before 2, 6 and 9, that is the outputs of 1, 5 and 8, in every layout."""
    from specbench.models.heads.eagle3 import Eagle3Settings

    for config in (EAGLE3_CONFIG, SPECFORGE, SPECULATORS_CONFIG):
        assert Eagle3Settings(config, 12).taps == (1, 5, 8)
    named = {"eagle_aux_hidden_state_layer_ids": [2, 18, 33]}
    assert Eagle3Settings({**SPECFORGE, "eagle_config": named}, 36).taps == (2, 18, 33)
    assert Eagle3Settings({**SPECULATORS_CONFIG, **named}, 36).taps == (1, 17, 32)


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        ({"vocab_size": 90}, {}, "its vocabulary is 90 and the target's is 96"),
        ({"target_hidden_size": 64}, {}, "width of the target's states is 64"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1, 7]}}, {}, "blocks 0, 1, 7"),
        ({"draft_vocab_size": 41}, {}, "'lm_head.weight' is 40 x 32 and not 41 x 32"),
        ({}, {"d2t": None}, "lacks the weight 'd2t'"),
        ({}, {"d2t": torch.full((DRAFT_VOCAB,), VOCAB)}, "outside of the vocabulary"),
        ({}, {"d2t": -torch.arange(DRAFT_VOCAB)}, "twice to one id"),
        ({"fc_norm": True}, {}, "lacks the weight 'fc_norm.0.weight'"),
        ({"num_attention_heads": "many"}, {}, "none of an EAGLE-3 head"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(target, tmp_path, config, tensors, said):
    base = {**EAGLE3_CONFIG, "eagle_config": IDS, **config}
    changed = {**published.eagle3_tensors(), **tensors}
    changed = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(ModelError) as caught:
        find_head(entry(target, published.write(tmp_path, base, changed)))
    assert said in f"{caught.value.what}: {caught.value.why}"


def test_a_head_of_another_family_than_the_methods_is_refused(target, tmp_path):
    config = {**EAGLE3_CONFIG, "eagle_config": IDS}
    folder = published.write(tmp_path, config, published.eagle3_tensors())
    with pytest.raises(ModelError, match="is of the family 'eagle3'"):
        find_head(entry(target, folder), ["eagle1"])
