"""Medusa's and Hydra's learners: places and labels, what begins as the target, what is written."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from specbench.errors import ConfigError
from specbench.models.heads.load import family_class, family_of, find_files
from specbench.models.state import read_tensors
from specbench.schema import catalog
from specbench.schema.build import instantiate
from specbench.training.corpus import padded
from tests.unit.models.heads.level_checkpoints import SHAPE

CHANNELS, VOCAB = 32, 96
SOURCE = torch.Generator()


class Target:
    """A frozen target whose final state at a token is that token's row of a table."""

    source = "llama"
    device = torch.device("cpu")

    def __init__(self):
        draw = torch.Generator().manual_seed(3)
        self.table = torch.randn(VOCAB, CHANNELS, generator=draw)
        self.weight = torch.randn(VOCAB, CHANNELS, generator=draw)

    def logits(self, states):
        return states @ self.weight.T

    def lm_head(self):
        return self.weight

    def embed(self, tokens):
        return F.embedding(tokens, self.table)


@pytest.fixture
def target():
    return Target()


def learner(recipe, target, **options):
    node = {**catalog.load("recipe", recipe)["learner"], **options}
    made = instantiate(node)
    torch.manual_seed(0)
    config = SimpleNamespace(model=SimpleNamespace(target="embedded:tiny_text_target"))
    made.begin(SimpleNamespace(frozen=target, device=target.device, config=config))
    return made


def batch(target):
    """Two texts whose answers begin behind 3 and 2 tokens."""
    rows = [[5, 9, 2, 7, 1, 30, 4, 8], [40, 11, 90, 2, 64, 17]]
    made = padded(rows, [3, 2])
    return made._replace(states={-1: target.embed(made.tokens)})


@pytest.mark.parametrize("recipe", ["medusa", "hydra"])
def test_heads_begin_as_the_targets_lm_head_and_guess_learned_tokens(recipe, target):
    made, data = learner(recipe, target, heads=2), batch(target)
    found = list(made._guess(data))
    # Head k's places: the tokens at t + 1 and at t + 2 + k are an answer's.
    assert found[0][0].nonzero().tolist() == [
        [0, 2],
        [0, 3],
        [0, 4],
        [0, 5],
        [1, 1],
        [1, 2],
        [1, 3],
    ]
    assert found[1][0].nonzero().tolist() == [[0, 2], [0, 3], [0, 4], [1, 1], [1, 2]]
    if recipe == "medusa":
        for places, logits in found:
            torch.testing.assert_close(logits, target.logits(data.states[-1][places]))


def test_the_loss_of_heads_that_begin_as_the_target(target):
    made, data = learner("medusa", target, heads=2), batch(target)
    want, tokens = 0.0, data.tokens
    for level, weight in ((0, 1.0), (1, 0.8)):
        for row, prompt, length in ((0, 3, 8), (1, 2, 6)):
            for t in range(prompt - 1, length - 2 - level):
                law = target.logits(data.states[-1][row, t]).log_softmax(-1)
                want -= weight * float(law[tokens[row, t + 2 + level]])
    found = made.loss(0, data, SOURCE)
    assert float(found.value.detach()) == pytest.approx(want, rel=1e-5)
    assert found.places == 7


def test_hydra_learns_the_targets_law(target):
    """The cross-entropy under the target's law is least where the heads have that law."""
    made, data = learner("hydra", target, heads=1), batch(target)
    entropy = 0.0
    for row, prompt, length in ((0, 3, 8), (1, 2, 6)):
        for t in range(prompt - 1, length - 2):
            law = target.logits(data.states[-1][row, t + 1]).softmax(-1)
            entropy += float(torch.special.entr(law).sum())
    first = made.module.hydra_mlp[0][0].res_connection
    assert float(made.loss(0, data, SOURCE).value) > entropy + 1
    first.weight.data.zero_()
    first.bias.data.zero_()
    first.weight.data[:, CHANNELS:] = torch.eye(CHANNELS)  # the table's row is the state
    assert float(made.loss(0, data, SOURCE).value) == pytest.approx(entropy, rel=1e-4)
    (laws,) = made.drafts(data)
    torch.testing.assert_close(laws.draft, laws.target, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "options", "family"),
    [
        ("medusa", {}, "medusa"),
        ("medusa", {"own_lm_head": True, "layers": 2}, "medusa"),
        ("hydra", {"layers": 3}, "hydra"),
        ("hydra", {"train_lm_heads": True}, "hydra"),
    ],
)
def test_what_is_written_is_the_published_layout(recipe, options, family, target, tmp_path):
    made = learner(recipe, target, **options)
    made.write(tmp_path)
    files = find_files(str(tmp_path))
    assert family_of(files) == family
    family_class(family).check(files, SHAPE)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["base_model_name_or_path"] == "llama"
    assert (settings.get("version") == "2") == (options == {} and recipe == "medusa")
    for name, tensor in made.module.state_dict().items():
        stored = read_tensors(files.weights[0])[name]
        assert stored.dtype == torch.float16 and torch.equal(stored, tensor.half())
    if recipe == "hydra":
        assert files.weights[0].name == "hydra_lm_head.pt"


def test_lm_heads_that_are_one_are_written_once(target, tmp_path):
    sizes = []
    for train in (False, True):
        made = learner("hydra", target, train_lm_heads=train)
        made.write(tmp_path)
        (weights,) = find_files(str(tmp_path)).weights
        sizes.append(weights.stat().st_size)
    assert sizes[1] - sizes[0] > 2 * 2 * VOCAB * CHANNELS - 2000


def test_frozen_lm_heads_stay_the_targets(target):
    made, data = learner("hydra", target), batch(target)
    made.loss(0, data, SOURCE).value.backward()
    gradients = {name for name, each in made.module.named_parameters() if each.grad is not None}
    assert not any("hydra_lm_head" in name for name in gradients)
    assert any("res_connection" in name for name in gradients)
    assert torch.equal(made.module.hydra_lm_head[2].weight, target.weight)


def test_losses_without_a_weight_are_refused():
    node = {**catalog.load("recipe", "medusa")["learner"], "token_weight": 0.0}
    with pytest.raises(ConfigError, match="token_weight=0"):
        instantiate(node)
