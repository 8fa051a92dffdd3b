"""Janus-Pro: a checkpoint as published runs lean and computes what the release defines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import JanusConfig, JanusForConditionalGeneration

from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.errors import ConfigError, ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models import janus
from specbench.models.janus import JanusCaptions
from specbench.schema import catalog
from tests.unit.decoding.parts import Autoregressive, generate, token_sd
from tests.unit.models.by_hand import check_laws
from tests.unit.models.image_checks import (
    check_forwards,
    check_identical,
    check_pictures_obey_the_grid,
    law_of,
    load_entry,
    picture,
)
from tests.unit.models.janus_checkpoints import (
    CODES,
    SIDE,
    WORDS,
    config,
    drawing,
    language,
    reference_of,
    tensors,
    write,
)

TOLERANCE = 1e-4
"""The library's rotary tables are float32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("janus")
    write(place / "target")
    write(place / "draft", seed=1, layers=1)
    return place


LOADER = {"grid": {"rows": SIDE, "columns": SIDE}}


def load(folder, *, loader=None, **changes):
    options = {**LOADER, **(loader or {})}
    target = str(folder / "target")
    return load_entry("janus_pro_1b", target=target, dtype="float64", loader=options, **changes)


@pytest.fixture(scope="module")
def pair(folder):
    return load(folder)


@pytest.fixture(scope="module")
def module():
    """The library's class with the tensors of the checkpoint, every one of them in its place.

    The published configuration does not say that words' table and head are two matrices; the
    library finds that out when it reads a checkpoint.
    """
    made = JanusForConditionalGeneration(JanusConfig(**config(), tie_word_embeddings=False))
    made.load_state_dict(tensors())
    return made.double().eval()


@pytest.fixture(scope="module")
def reference():
    return reference_of(tensors())


def theirs_of(module):
    """The mixed logits of the library's class, every row from its whole sequence."""

    @torch.inference_mode()
    def reference(prompt, tokens, scale):
        ids = torch.tensor([prompt, [prompt[0], *[0] * (len(prompt) - 2), prompt[-1]]])
        embedded = module.get_input_embeddings()(ids)
        codes = torch.tensor(tokens, dtype=torch.int64) - len(WORDS)
        drawn = module.prepare_embeddings_for_image_generation(codes)
        whole = torch.cat([embedded, drawn.expand(2, -1, -1)], 1)
        states = module.model.language_model(inputs_embeds=whole).last_hidden_state
        rows = module.model.generation_head(states[:, len(prompt) - 1 :])
        return rows[1] + scale * (rows[0] - rows[1])

    return reference


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_forwards_equal_full_recomputation(pair, reference, scale):
    prompt = pair.image.encode("a red cat and the blue dog")
    check_forwards(pair, prompt, reference, scale, TOLERANCE)


def test_laws_are_those_of_the_definition_and_of_the_library(pair, module, reference):
    pair = pair.under(law_of(5.0))
    prompt, drawn = pair.image.encode("the blue cat on a dog"), picture(pair)
    cache = pair.target_cache(len(prompt) + len(drawn))
    fed = torch.tensor([[*prompt, *drawn[:-1]]])
    got = pair.target.forward(fed, cache)[0, len(prompt) - 1 :, len(WORDS) :]
    for want in (reference, theirs_of(module)):
        check_laws(got, want(prompt, drawn[:-1], 5.0), top_k=8)


def test_greedy_pictures_are_those_of_the_release(pair, reference):
    """The release's own loop, embedding by embedding, chooses the same codes."""
    prompt = pair.image.encode("a blue cat")
    law = law_of(5.0, 0.0)
    pair = pair.under(law)
    ours = generate(Autoregressive(), pair, law, prompt, SIDE**2).tokens
    theirs = []
    for _ in range(SIDE**2):
        theirs.append(len(WORDS) + int(reference(prompt, theirs, 5.0)[-1].argmax()))
    assert list(ours) == theirs


def test_the_prompt_is_the_authors_template(pair):
    ids = pair.image.encode("  a red cat ")
    words = [WORDS[token] for token in ids]
    expected = ["<s>", "<|User|>:", "a", "red", "cat", "<|Assistant|>:", "<begin_of_image>"]
    assert words == expected
    template = catalog.load("model", "janus_pro_1b")["loader"]["template"]
    assert template == "<|User|>: {caption}\n\n<|Assistant|>:"


def test_the_unconditional_row_blanks_all_but_the_ends_and_hides_nothing(pair):
    prompt = pair.image.encode("a red cat")
    rows = pair.target._conditioning.rows(prompt, 2)
    assert rows.tokens.tolist() == [prompt, [1, 0, 0, 0, 0, 0, 3]]
    assert rows.padding == (0, 0)
    assert pair.target._conditioning.rows(prompt, 1).tokens.tolist() == [prompt]
    with pytest.raises(ModelError, match="two conditioning rows"):
        pair.target._conditioning.rows(prompt, 3)


def test_hiding_the_blanks_would_be_noticed(folder, reference, monkeypatch):
    """A mutation: padding that nobody sees is not what the release computes."""
    visible = JanusCaptions.rows

    def hidden(self, prompt, count, *unconditional):
        rows = visible(self, prompt, count)
        return rows._replace(padding=(0, len(prompt) - 1)[:count])

    monkeypatch.setattr(janus.JanusCaptions, "rows", hidden)
    mutant = load(folder)
    with pytest.raises(AssertionError):
        check_forwards(mutant, mutant.image.encode("a red cat"), reference, 5.0, TOLERANCE)


def test_codes_stand_behind_the_words(pair):
    assert pair.image.first_code == len(WORDS)
    assert pair.image.codes == CODES
    assert pair.target.vocab_size == len(WORDS) + CODES
    assert pair.image.grid.length == SIDE**2


def test_pictures_obey_the_grid(pair):
    check_pictures_obey_the_grid(pair, [pair.image.encode(text) for text in ("a", "the dog")])


@pytest.mark.parametrize("coupling", ["fresh", "maximal", "gumbel"])
def test_jacobi_decoding_draws_the_same_picture(pair, coupling):
    decoder = SpeculativeJacobi(window=4, coupling=coupling, acceptance="oracle")
    decoder.prepare(pair)
    check_identical(pair, pair.image.encode("a red dog"), decoder)
    check_identical(pair, pair.image.encode("a red dog"))


def test_pixels_are_those_of_transformers(folder, pair, module):
    tokens = picture(pair)
    codes = torch.tensor([tokens]) - len(WORDS)
    with torch.inference_mode():
        decoded = module.float().decode_image_tokens(codes)[0].double().numpy()
    module.double()
    want = np.clip((decoded + 1) / 2 * 255, 0, 255).astype(np.uint8)
    got = pair.image.pixels(tokens)
    assert got.shape == want.shape == (2 * SIDE, 2 * SIDE, 3)
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1
    torch.testing.assert_close(pair.image.vectors("codebook").norm(dim=-1), torch.ones(CODES))
    stored = module.model.vqmodel.quantize.embedding.weight.detach().float()
    assert torch.equal(pair.image.vectors("rows"), stored)
    assert (stored.norm(dim=-1) - 1).abs().min() > 1e-3
    with torch.inference_mode():
        vectors = module.model.generation_embeddings.weight
        want = module.model.generation_aligner(vectors.double())
    torch.testing.assert_close(pair.image.vectors("embeddings").double(), want, atol=1e-5, rtol=0)


def test_pixels_can_be_drawn_in_bfloat16_as_the_authors_do(folder, pair):
    tokens = picture(pair)
    half = JanusForConditionalGeneration.from_pretrained(
        folder / "target", dtype=torch.bfloat16
    ).eval()
    with torch.inference_mode():
        decoded = half.decode_image_tokens(torch.tensor([tokens]) - len(WORDS))[0].float().numpy()
    want = np.clip((decoded + 1) / 2 * 255, 0, 255).astype(np.uint8)
    got = load(folder, loader={"pixel_dtype": "bfloat16"}).image.pixels(tokens)
    apart = np.abs(got.astype(int) - want.astype(int))
    assert apart.max() <= 1 and (apart == 0).mean() > 0.95
    assert (got != pair.image.pixels(tokens)).mean() > 0.2


def test_a_smaller_janus_drafts(folder):
    pair = load_entry(
        "janus_pro_7b",
        target=str(folder / "target"),
        draft=str(folder / "draft"),
        dtype="float64",
        needs={"draft"},
        loader=LOADER,
    )
    law = law_of(5.0, 0.0)
    pair = pair.under(law)
    prompt = pair.image.encode("a cat on the dog")
    plain, drafted = (
        generate(decoder, pair, law, prompt, SIDE**2).tokens
        for decoder in (Autoregressive(), token_sd(3))
    )
    assert plain == drafted
    assert pair.draft.layers == 1 and pair.provenance["draft"]["engine"] == "lean"


class _Vocabulary:
    bos_token_id, pad_token_id = 1, 0

    def __init__(self, names):
        self._names = {name: index for index, name in enumerate(names)}

    def get_vocab(self):
        return self._names


def test_a_draft_reads_the_targets_prompt_in_its_own_ids():
    words = ["<pad>", "<s>", *(f"w{index}" for index in range(300))]
    captions = JanusCaptions(_Vocabulary([*words, "<go>", "<tag>"]), "{caption}", "<go>")
    prompt = [1, 5, 303, 302]
    swapped = captions.for_draft(_Vocabulary([*words, "<tag>", "<go>"]), "draft")
    assert swapped.rows(prompt, 2).tokens.tolist() == [[1, 5, 302, 303], [1, 0, 0, 303]]
    assert captions.rows(prompt, 2).tokens.tolist() == [prompt, [1, 0, 0, 302]]
    lacking = captions.for_draft(_Vocabulary([*words, "<go>"]), "draft")
    assert lacking.rows(prompt, 1).tokens.tolist() == [[1, 5, 0, 302]]
    with pytest.raises(ModelError, match="cannot draft"):
        captions.for_draft(_Vocabulary(["<pad>", "<s>", "<go>", "<tag>", *words[2:]]), "draft")


def test_a_draft_with_other_codes_is_refused(folder, tmp_path):
    state = tensors(layers=1)
    book = state["model.vqmodel.quantize.embedding.weight"]
    write(tmp_path, layers=1, state={**state, "model.vqmodel.quantize.embedding.weight": -book})
    with pytest.raises(ModelError, match="different codebooks"):
        load(folder, draft=str(tmp_path), needs={"draft"})


@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.1.mlp.up_proj.weight",
        "model.generation_head.vision_head.bias",
        "model.vqmodel.decoder.conv_out.weight",
    ],
)
def test_weights_that_are_missing_are_not_made_up(tmp_path, name):
    state = tensors()
    del state[name]
    write(tmp_path / "target", state=state)
    with pytest.raises(ModelError, match="lacks a weight of the model") as caught:
        load(tmp_path)
    assert name in caught.value.why


def test_weights_that_only_read_pictures_may_be_missing(tmp_path, pair):
    write(tmp_path / "target", state={**language(), **drawing()})
    blind = load(tmp_path)
    prompt = torch.tensor([pair.image.encode("a red dog")])
    pair, blind = (each.under(law_of(5.0)) for each in (pair, blind))
    left, right = (
        each.target.forward(prompt, each.target.new_cache(1, 16)) for each in (pair, blind)
    )
    assert torch.equal(left, right)


def test_a_tokenizer_without_the_picture_token_is_refused(folder):
    with pytest.raises(ModelError, match="no token for <no_such_token>"):
        load(folder, loader={"begin": "<no_such_token>"})


def test_options_that_do_not_fit_are_refused(folder):
    with pytest.raises(ModelError, match="does not draw 2 x 3 codes"):
        load(folder, loader={"grid": {"rows": 2, "columns": SIDE}})
    with pytest.raises(ConfigError, match=r"model\.loader\.template"):
        load(folder, loader={"template": "no caption"})
    with pytest.raises(ConfigError, match="rowz"):
        load(folder, loader={"grid": {"rowz": 2}})


def test_without_network_the_reason_is_one_sentence(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(checkpoints.HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match="the hub cannot be reached") as caught:
        load_entry("janus_pro_7b")
    assert caught.value.exit_code == 2


def test_memory_is_checked_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "free_memory", lambda device: 10**9)
    monkeypatch.setattr(janus, "load_module", lambda *args: pytest.fail())
    with pytest.raises(ModelError, match=r"needs about 19\.0 GB"):
        load(folder, weights_gb=19.0)
