"""DFlash's drafter: the published layout is read, and its laws are the published arithmetic's.

In development the release's module (DFlashDraftModel, dflash/model.py of github.com/z-lab/dflash)
and the assistant of transformers' own DFlash generator (MuseGlimmerAssistantModel, with full
attention) ran in float64 on the weights that `tensors` makes: both gave the logits of
`published_logits` to 4e-6, what their float32 rotary tables leave.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import silu

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import dflash
from specbench.decoding.drafters.dflash import BlockHeadDrafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers import token_sd
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.errors import ModelError
from specbench.law import Law
from specbench.models.base import Taps, View
from specbench.models.heads.dflash import DFlashHead
from specbench.models.heads.load import find_head, load_head
from specbench.models.load import load_pair
from specbench.schema.model import ModelConfig
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair
from tests.unit.models import tiny_checkpoints
from tests.unit.models.heads.published import rms, rotated, write

WIDTH, HEADS, GROUPS, EACH, FEED_FORWARD, VOCAB = 32, 4, 2, 16, 48, 96
LAYERS, BLOCK, MASK, TAPS, THETA = 2, 5, 7, (0, 1), 1000000.0
CONFIG = {
    "architectures": ["DFlashDraftModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoModel": "dflash.DFlashDraftModel"},
    "block_size": BLOCK,
    "bos_token_id": 0,
    "dflash_config": {"mask_token_id": MASK, "target_layer_ids": list(TAPS)},
    "dtype": "float32",
    "eos_token_id": 1,
    "head_dim": EACH,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": FEED_FORWARD,
    "layer_types": ["full_attention"] * LAYERS,
    "max_position_embeddings": 256,
    "max_window_layers": LAYERS,
    "model_type": "qwen3",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": GROUPS,
    "num_target_layers": 3,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": THETA,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": VOCAB,
}
"""The keys of the config.json of a public drafter, at a small size."""


def tensors(seed=0):
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=draw) * shape[-1] ** -0.5

    made = {
        "fc.weight": random(WIDTH, len(TAPS) * WIDTH),
        "hidden_norm.weight": 1 + 0.3 * random(WIDTH),
        "norm.weight": 1 + 0.3 * random(WIDTH),
    }
    for layer in range(LAYERS):
        prefix = f"layers.{layer}."
        made |= {
            f"{prefix}self_attn.q_proj.weight": random(HEADS * EACH, WIDTH),
            f"{prefix}self_attn.k_proj.weight": random(GROUPS * EACH, WIDTH),
            f"{prefix}self_attn.v_proj.weight": random(GROUPS * EACH, WIDTH),
            f"{prefix}self_attn.o_proj.weight": random(WIDTH, HEADS * EACH),
            f"{prefix}self_attn.q_norm.weight": 1 + 0.3 * random(EACH),
            f"{prefix}self_attn.k_norm.weight": 1 + 0.3 * random(EACH),
            f"{prefix}mlp.gate_proj.weight": random(FEED_FORWARD, WIDTH),
            f"{prefix}mlp.up_proj.weight": random(FEED_FORWARD, WIDTH),
            f"{prefix}mlp.down_proj.weight": random(WIDTH, FEED_FORWARD),
            f"{prefix}input_layernorm.weight": 1 + 0.3 * random(WIDTH),
            f"{prefix}post_attention_layernorm.weight": 1 + 0.3 * random(WIDTH),
        }
    return made


def published_logits(made, target, states, tokens, start=None):
    """What a block of tokens says behind the target's states, [T, V]: one pass, no cache.

    Args:
        made: The drafter's weights.
        target: The target's weights.
        states: [n, taps C] the target's, of all tokens before the block.
        tokens: Of the block.
        start: Position of the block's first token, if it is not n.
    """
    t = {name: tensor.double() for name, tensor in made.items()}
    context = rms(states.double() @ t["fc.weight"].T, t["hidden_norm.weight"])
    x = target["model.embed_tokens.weight"].double()[list(tokens)]
    count, size = len(states), len(tokens)
    first = count if start is None else start
    positions = torch.cat([torch.arange(count), first + torch.arange(size)])
    for layer in range(LAYERS):
        names = f"layers.{layer}."

        def weight(name, names=names):
            return t[f"{names}{name}.weight"]

        hidden = rms(x, weight("input_layernorm"))
        both = torch.cat([context, hidden])
        q = (hidden @ weight("self_attn.q_proj").T).view(size, HEADS, EACH)
        k = (both @ weight("self_attn.k_proj").T).view(-1, GROUPS, EACH)
        v = (both @ weight("self_attn.v_proj").T).view(-1, GROUPS, EACH)
        q = rotated(rms(q, weight("self_attn.q_norm")), positions[count:], THETA)
        k = rotated(rms(k, weight("self_attn.k_norm")), positions, THETA)
        k, v = (each.repeat_interleave(HEADS // GROUPS, 1) for each in (k, v))
        weights = (torch.einsum("thd,shd->hts", q, k) * EACH**-0.5).softmax(-1)
        mixed = torch.einsum("hts,shd->thd", weights, v).reshape(size, -1)
        x = x + mixed @ weight("self_attn.o_proj").T
        normed = rms(x, weight("post_attention_layernorm"))
        gate, up = (normed @ weight(f"mlp.{name}_proj").T for name in ("gate", "up"))
        x = x + (silu(gate) * up) @ weight("mlp.down_proj").T
    return rms(x, t["norm.weight"]) @ target["lm_head.weight"].double().T


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tiny_checkpoints.write(tmp_path_factory.mktemp("target"), "llama")


def entry(target, head, dtype="float64"):
    loader = {"_target_": "specbench.models.load.load_pair"}
    places = {"target": str(target), "head": str(head), "dtype": dtype, "device": "cpu"}
    return ModelConfig.from_dict({"name": "t", "title": "t", "loader": loader} | places)


@pytest.fixture
def models(target, tmp_path):
    config = entry(target, write(tmp_path, CONFIG, tensors()))
    pair = load_pair(config, needs=frozenset({"hidden_states", "features"}))
    pair.head = load_head(find_head(config), pair.target)
    return pair


def decoder(draft_length=BLOCK - 1):
    return DraftVerify(BlockHeadDrafter(), Chain(), Constant(draft_length), TokenSD())


def recorded(models, draft_length=BLOCK - 1, count=24):
    """Each round's text before it, and the laws that its tokens were drawn from."""
    method, rounds, found = decoder(draft_length), [], []
    method.probe = lambda scored, verdict: rounds.append((scored.tree, verdict))
    done = generate(method, models, Law(temperature=1.0), (3, 7, 4), count)
    text = [3, 7, 4, done.tokens[0]]
    for tree, verdict in rounds:
        if tree.size:
            found.append((list(text), tree.draws.law[0]))
        text += verdict.tokens
    return found, done


def expected(models, target, text, depth, **changes):
    """The laws of a round by hand: the target reads the text at once."""
    taps = Taps(TAPS, every=True)
    cache = models.target.new_cache(1, 64)
    models.target.forward(torch.tensor([text[:-1]]), cache, View(taps=taps))
    states = torch.cat(taps.states, -1)[0]
    weights = load_file(target / "model.safetensors")
    block = [text[-1], *[MASK] * depth]
    return published_logits(tensors(), weights, states, block, **changes)[1:].softmax(-1)


def off(law, other):
    return (law - other).abs().max().item()


def test_every_round_says_what_the_published_arithmetic_says(models, target):
    found, done = recorded(models)
    assert {len(law) for _, law in found} == {1, 2, 3, 4}, "the last rounds have less room"
    assert any(round_.count.accepted > 0 for round_ in done.rounds)
    for text, law in found:
        assert off(law, expected(models, target, text, len(law))) < 1e-6
    text, law = found[2]
    assert off(law, expected(models, target, text, len(law), start=len(text))) > 1e-4
    assert off(law, expected(models, target, text, len(law) + 1)[: len(law)]) > 1e-4


def test_a_shorter_draft_is_a_shorter_block(models, target):
    for text, law in recorded(models, draft_length=2)[0]:
        assert len(law) <= 2
        assert off(law, expected(models, target, text, len(law))) < 1e-6


def test_stale_states_are_caught(models, target, monkeypatch):
    """A drafter that forgets the state of the root and keeps the others, one too late."""
    remember = DFlashHead.remember

    def late(self, states, cache):
        shifted = tuple(state.roll(1, 1) for state in states)
        remember(self, shifted if cache.lengths[0] else states, cache)

    monkeypatch.setattr(DFlashHead, "remember", late)
    found, _ = recorded(models, count=48)
    assert max(off(law, expected(models, target, text, len(law))) for text, law in found) > 1e-4


def test_a_block_that_stays_in_the_cache_is_caught(models, target, monkeypatch):
    class Keeping(dflash._BlockDrafting):
        def observe(self, session, outcome):
            kept = tuple(state[:, 1:] for state in outcome.kept)
            self._role.cache.advance(1)  # the block's first slot is taken for a context's
            if kept[0].shape[1]:
                self._head.remember(kept, self._role.cache)

    monkeypatch.setattr(dflash, "_BlockDrafting", Keeping)
    found, _ = recorded(models)
    assert off(found[1][1], expected(models, target, found[1][0], len(found[1][1]))) > 1e-4


def test_greedy_tokens_are_the_targets(models):
    law = Law(temperature=0.0)
    for seed in range(4):
        prompt = (3, 7, 4 + seed)
        plain = generate(Autoregressive(), models, law, prompt, 40)
        assert generate(decoder(), models, law, prompt, 40).tokens == plain.tokens


def test_a_round_is_one_forward_of_the_head_and_one_of_the_target(models):
    _, done = recorded(models)
    for round_ in done.rounds[1:5]:
        assert (round_.count.draft.forwards, round_.count.draft.tokens) == (1, BLOCK)
        assert round_.count.target.forwards == 1


def toy(seed):
    pair = table_pair(vocab=2)
    pair.head = DFlashHead.random(pair.target, 2, seed)
    return pair


PROMPT, COUNT = (0, 1, 0, 0, 1), 4
LAWS = {
    "plain": Law(),
    "cut": Law(temperature=1.3, top_p=0.8),
    "penalty": Law(temperature=0.8, repetition_penalty=1.7),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("seed", range(2))
def test_the_law_is_the_targets_behind_any_head(seed, law):
    got = output_law(decoder(2), toy(seed), law, PROMPT, COUNT)
    assert distance(got, true_law(toy(seed), law, PROMPT, COUNT)) < 1e-12


RESIDUAL = token_sd.residual


def bonus_of_the_last_draft(target, draft, accepted):
    full, rows = accepted == draft.shape[1], torch.arange(target.shape[0])
    return torch.where(full[:, None], target[rows, accepted - 1], RESIDUAL(target, draft, accepted))


def law_of_another_depth(scored, target):
    return scored.tree.draws.law.roll(1, 1)


@pytest.mark.parametrize("mutation", ["bonus", "law"])
def test_a_wrong_law_is_caught(monkeypatch, mutation):
    if mutation == "bonus":
        monkeypatch.setattr(token_sd, "residual", bonus_of_the_last_draft)
    else:
        monkeypatch.setattr(token_sd, "chain_law", law_of_another_depth)
    got = output_law(decoder(2), toy(0), Law(), PROMPT, COUNT)
    assert distance(got, true_law(toy(0), Law(), PROMPT, COUNT)) > 1e-3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_size": 64}, "its hidden width is 64 and the target's is 32"),
        ({"vocab_size": 100}, "its vocabulary is 100 and the target's is 96"),
        ({"num_target_layers": 36}, "its number of target layers is 36 and the target's is 3"),
        ({"num_hidden_layers": 3, "layer_types": None}, "lacks the weight 'layers.2."),
        ({"intermediate_size": 64}, "'layers.0.mlp.gate_proj.weight' is 48 x 32 and not 64 x 32"),
        ({"dflash_config": {"mask_token_id": 7, "target_layer_ids": [1, 9]}}, "blocks 1, 9"),
        ({"dflash_config": {"mask_token_id": 7, "target_layer_ids": [0, 2]}}, "last is not read"),
        ({"dflash_config": {"mask_token_id": 96, "target_layer_ids": [0, 1]}}, "is 96 of 96"),
        ({"dflash_config": {"mask_token_id": 7}}, "no target_layer_ids"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding layers"),
        ({"is_causal": True}, "is_causal=True"),
        ({"final_logit_softcapping": 20.0}, "final_logit_softcapping=20.0"),
        ({"hidden_size": "wide"}, "no DFlash drafter's"),
    ],
)
def test_a_wrong_pairing_is_refused_before_weights_are_read(
    target, tmp_path, monkeypatch, changed, said
):
    monkeypatch.setattr("specbench.models.heads.base.read_tensors", None)
    folder = write(tmp_path, CONFIG | changed, tensors())
    with pytest.raises(ModelError) as caught:
        find_head(entry(target, folder))
    assert said in f"{caught.value.what}: {caught.value.why}"
