"""EAGLE's head: the published layout is read; its logits are those of the arithmetic by hand."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import load_file

from specbench.decoding.tree import TreeMask
from specbench.errors import ModelError
from specbench.models.base import Taps, View
from specbench.models.heads.load import find_files, find_head, load_head
from specbench.models.load import load_pair
from specbench.schema.model import ModelConfig
from tests.unit.models import tiny_checkpoints
from tests.unit.models.heads import published
from tests.unit.models.heads.published import EAGLE_CONFIG, VOCAB, WIDTH


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tiny_checkpoints.write(tmp_path_factory.mktemp("target"), "llama")


def entry(target, head, **keys):
    loader = {"_target_": "specbench.models.load.load_pair"}
    return ModelConfig.from_dict(
        {"name": "t", "title": "t", "target": str(target), "head": str(head), "loader": loader}
        | {"dtype": "float32", **keys}
    )


def loaded(target, head):
    config = entry(target, head)
    models = load_pair(config, needs=frozenset())
    return models.target, load_head(find_head(config), models.target)


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_logits_are_those_of_the_published_arithmetic(target, tmp_path, pickled, bias):
    """A prompt, a chain behind it, and a tree below, fed in four forwards with one cache."""
    tensors = published.eagle_tensors(bias=bias)
    model, head = loaded(target, published.write(tmp_path, EAGLE_CONFIG, tensors, pickled))
    draw = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, VOCAB, (9,), generator=draw)
    features = torch.randn(9, WIDTH, generator=draw)
    parents = (-1, -1, 0, 1, 1)
    mask = TreeMask.from_parents(parents)
    cache = head.new_cache(1, 64)
    made = []
    logits = []
    for count, view in ((2, View()), (1, View()), (1, View()), (5, None)):
        start = sum(len(part) for part in made)
        if view is None:  # the tree's root is the entry before it, which is cached
            view = View(mask=TreeMask(mask.offsets, mask.ancestors[1:]))
        view = view._replace(taps=Taps((head.made,)))
        chosen = slice(start, start + count)
        inputs = head.inputs(tokens[None, chosen], features[None, chosen])
        logits.append(head.forward(inputs, cache, view)[0])
        made.append(view.taps.states[0][0])
    sees = torch.ones(9, 9).tril().bool()
    sees[4:, 4:] = mask.ancestors[1:, 1:]
    positions = torch.tensor([0, 1, 2, 3, *(3 + mask.offsets[1:]).tolist()])
    expected = published.eagle_features(tensors, tokens, features, positions, sees)
    torch.testing.assert_close(torch.cat(made), expected.float(), rtol=1e-4, atol=1e-4)
    head_weight = load_file(target / "model.safetensors")["lm_head.weight"].double()
    torch.testing.assert_close(
        torch.cat(logits), (expected @ head_weight.T).float(), rtol=1e-4, atol=1e-4
    )


def test_a_file_without_an_embedding_takes_the_targets(target, tmp_path):
    tensors = published.eagle_tensors()
    embedding = load_file(target / "model.safetensors")["model.embed_tokens.weight"]
    with_own = {**tensors, "embed_tokens.weight": embedding}
    without = {k: v for k, v in tensors.items() if k != "embed_tokens.weight"}
    inputs = []
    for name, kept in (("own", with_own), ("none", without)):
        _, head = loaded(target, published.write(tmp_path / name, EAGLE_CONFIG, kept))
        tokens, features = torch.tensor([[1, 5]]), torch.ones(1, 2, WIDTH)
        inputs.append(head.inputs(tokens, features))
    assert torch.equal(*inputs)


def refusal(target, tmp_path, config, tensors):
    folder = published.write(tmp_path, config, tensors)
    with pytest.raises(ModelError) as caught:
        find_head(entry(target, folder))
    return f"{caught.value.what}: {caught.value.why}"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_size": 64}, "its hidden width is 64 and the target's is 32"),
        ({"vocab_size": 100}, "its vocabulary is 100 and the target's is 96"),
        ({"num_hidden_layers": 2}, "lacks the weight 'layers.1.self_attn.q_proj.weight'"),
        ({"intermediate_size": 64}, "'layers.0.mlp.gate_proj.weight' is 48 x 32 and not 64 x 32"),
        ({"hidden_size": "wide"}, "none of a Llama"),
    ],
)
def test_a_wrong_pairing_is_refused_before_weights_are_read(
    target, tmp_path, monkeypatch, changed, said
):
    monkeypatch.setattr("specbench.models.heads.base.read_tensors", None)
    assert said in refusal(target, tmp_path, EAGLE_CONFIG | changed, published.eagle_tensors())


def test_files_that_are_no_head(target, tmp_path):
    assert "no head that specbench knows" in refusal(target, tmp_path, {}, {"w": torch.ones(1)})
    with pytest.raises(ModelError, match="holds no weights"):
        find_files(str(target.parent))
    with pytest.raises(ModelError, match="no folder"):
        find_files("./nowhere")
    with pytest.raises(ModelError, match="no embedded head 'tiny_text_targt'") as caught:
        find_files("embedded:tiny_text_targt")
    assert "tiny_text_target" in caught.value.fix
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"12")
    with pytest.raises(ModelError, match="cannot be read"):
        find_files(str(tmp_path / "broken"))


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_with_code_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"fc.weight": Evil()}, protocol=2))
    with pytest.raises(ModelError, match="is not loaded|cannot be read"):
        find_files(str(tmp_path))


def test_the_digest_is_of_every_file_that_is_read(tmp_path):
    tensors = published.eagle_tensors()
    one = find_files(str(published.write(tmp_path / "a", EAGLE_CONFIG, tensors))).digest
    same = find_files(str(published.write(tmp_path / "b", EAGLE_CONFIG, tensors))).digest
    other = {**EAGLE_CONFIG, "rope_theta": 7.0}
    assert one == same
    assert one != find_files(str(published.write(tmp_path / "c", other, tensors))).digest
    tensors["fc.bias"][0] += 1
    assert one != find_files(str(published.write(tmp_path / "d", EAGLE_CONFIG, tensors))).digest
