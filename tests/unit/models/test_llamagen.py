"""LlamaGen: published files load through the real path and compute what the release defines."""

from __future__ import annotations

import argparse

import pytest
import torch

from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.errors import ConfigError, ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models import llamagen_body, published
from specbench.models.base import View
from specbench.models.caption_features import clean_caption
from specbench.models.image import Grid
from specbench.models.llamagen_body import grid_angles
from tests.unit.decoding.parts import Autoregressive, generate, token_sd
from tests.unit.models import llamagen_checkpoints as files
from tests.unit.models import t5_checkpoints as t5
from tests.unit.models.by_hand import check_laws, write_tensors
from tests.unit.models.image_checks import (
    check_forwards,
    check_identical,
    check_pictures_obey_the_grid,
    law_of,
    load_entry,
    picture,
)

LOADER = {
    "weights": "model.pt",
    "image_tokenizer": "vq.pt",
    "heads": files.HEADS,
    "grid": {"rows": files.SIDE, "columns": files.SIDE},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of a class-conditional model, a draft and a caption-conditional model."""
    place = tmp_path_factory.mktemp("llamagen")
    torch.save({"model": files.transformer()}, place / "model.pt")
    torch.save({"model": files.transformer(layers=1)}, place / "draft.pt")
    torch.save({"model": files.transformer("caption")}, place / "caption.pt")
    torch.save({"model": files.image_tokenizer()}, place / "vq.pt")
    t5.write(place / "t5")
    return place


def state_of(folder, name):
    return torch.load(folder / name, weights_only=True)["model"]


def load_classes(folder, **loader):
    return load_entry(
        "llamagen_c2i_b_256", target=str(folder), dtype="float64", loader={**LOADER, **loader}
    )


def load_captions(folder, **loader):
    changes = {**LOADER, "weights": "caption.pt", "text_encoder": str(folder / "t5"), **loader}
    return load_entry("llamagen_t2i_xl_256", target=str(folder), dtype="float64", loader=changes)


@pytest.fixture(scope="module")
def classes(folder):
    return load_classes(folder)


@pytest.fixture(scope="module")
def captions(folder):
    return load_captions(folder)


def caption_reference(folder):
    """The features of a prompt by the encoder's definition, whatever the release pads."""

    def features(prompt):
        return t5.features([token - files.CODES for token in prompt if token > files.CODES])

    return files.caption_reference(state_of(folder, "caption.pt"), features)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_classes_equal_full_recomputation(folder, classes, scale):
    reference = files.class_reference(state_of(folder, "model.pt"))
    check_forwards(classes, classes.image.encode("3"), reference, scale)


@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("caption", ["a red cat", "blue dog", "a photo of a red cat and a dog"])
def test_captions_equal_full_recomputation(folder, captions, scale, caption):
    """Short captions hide slots of both rows, long ones are cut at the last slot.

    The library's norms in the encoder compute in float32: agreement ends near 1e-5.
    """
    reference = caption_reference(folder)
    check_forwards(captions, captions.image.encode(caption), reference, scale, 1e-4)


def test_laws_are_those_of_the_release(folder, classes, captions):
    class_law = files.class_reference(state_of(folder, "model.pt"))
    cases = ((classes, "2", class_law), (captions, "a red cat", caption_reference(folder)))
    for pair, text, reference in cases:
        pair = pair.under(law_of(3.0))
        prompt, drawn = pair.image.encode(text), picture(pair)
        cache = pair.target_cache(len(prompt) + len(drawn))
        fed = torch.tensor([[*prompt, *drawn[:-1]]])
        got = pair.target.forward(fed, cache)[0, len(prompt) - 1 :, : files.CODES]
        check_laws(got, reference(prompt, drawn[:-1], 3.0), top_k=8)


def test_a_text_encoder_that_lacks_weights_is_refused(folder, tmp_path):
    t5.write(tmp_path)
    state = t5.tensors()
    del state["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    write_tensors(tmp_path, state)
    with pytest.raises(ModelError, match="lacks a weight of the model"):
        load_captions(folder, text_encoder=str(tmp_path))


def test_captions_may_alternate(folder, captions):
    """The features of one caption leave nothing behind in the rows of the next."""
    reference = caption_reference(folder)
    captions = captions.under(law_of(3.0))
    for caption in ("a photo of a red cat", "dog", "a photo of a red cat"):
        prompt = captions.image.encode(caption)
        cache = captions.target_cache(len(prompt) + 4)
        got = captions.target.forward(torch.tensor([prompt]), cache, View(last=1))[0, -1]
        want = reference(prompt, [], 3.0)[-1]
        torch.testing.assert_close(got[: files.CODES], want, atol=1e-4, rtol=1e-4)


def test_features_that_were_forgotten_are_made_again(folder, captions, monkeypatch):
    prompt = captions.image.encode("a blue dog")
    rows = captions.target._conditioning
    before = rows.rows(prompt, 2), captions.target.body.embedding.clone()
    rows._features._seen.clear()
    captions.target.body.embedding[files.CODES : files.CODES + files.SLOTS] = 0
    after = rows.rows(prompt, 2)
    assert torch.equal(before[0].tokens, after.tokens) and before[0].padding == after.padding
    hidden = after.padding[0]
    assert hidden == files.SLOTS - 3
    shown = slice(files.CODES + hidden, files.CODES + files.SLOTS)
    torch.testing.assert_close(captions.target.body.embedding[shown], before[1][shown])


def test_mutations_of_the_rotation_are_noticed(folder, monkeypatch):
    """Pairs taken for halves, and condition slots that keep their keys, change the logits."""
    reference = files.class_reference(state_of(folder, "model.pt"))
    monkeypatch.setattr(llamagen_body, "halves_from_pairs", lambda weight, width: weight)
    pair = load_classes(folder)
    with pytest.raises(AssertionError):
        check_forwards(pair, pair.image.encode("3"), reference, 2.0)
    monkeypatch.undo()

    def turned(grid, width, slots):
        return grid_angles(grid, width, slots).flip(1)

    monkeypatch.setattr(llamagen_body, "grid_angles", turned)
    pair = load_classes(folder)
    with pytest.raises(AssertionError):
        check_forwards(pair, pair.image.encode("3"), reference, 2.0)


def test_condition_slots_have_neither_queries_nor_keys(classes, captions):
    for pair, slots in ((classes, 1), (captions, files.SLOTS)):
        body = pair.target.body
        cos, sin = body.weights.cos, body.weights.sin
        assert cos[:slots].abs().max() == 0 and sin[:slots].abs().max() == 0
        assert cos[slots].abs().min() > 0
        assert body.context == slots + files.SIDE**2


def test_positions_are_rows_then_columns():
    """`precompute_freqs_cis_2d`: channel pair i of a half turns by base^(-4 i / D) per step."""
    angles = grid_angles(Grid(3, 3), 16, 2)
    assert angles.shape == (11, 8) and angles[:2].abs().max() == 0
    for place in range(9):
        row, column = divmod(place, 3)
        for pair in range(4):
            speed = 10000.0 ** (-2 * pair / 8)
            assert angles[2 + place, pair] == pytest.approx(row * speed)
            assert angles[2 + place, 4 + pair] == pytest.approx(column * speed)


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
def test_every_published_wrapping_loads(folder, tmp_path, classes, wrapper):
    state = state_of(folder, "model.pt")
    torch.save({wrapper: state} if wrapper else state, tmp_path / "model.pt")
    torch.save(state_of(folder, "vq.pt"), tmp_path / "vq.pt")
    pair = load_classes(tmp_path)
    pair, classes = (each.under(law_of(2.0)) for each in (pair, classes))
    prompt = torch.tensor([pair.image.encode("1")])
    outputs = [each.target.forward(prompt, each.target_cache(8)) for each in (pair, classes)]
    assert torch.equal(*outputs)


def test_the_arguments_of_its_training_may_stand_beside_the_weights(folder, tmp_path, classes):
    """The release's training script saves them so: an `argparse.Namespace` and step counts."""
    content = {
        "model": state_of(folder, "model.pt"),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95)}]},
        "steps": 300000,
        "args": argparse.Namespace(gpt_model="GPT-B", lr=1e-4, no_compile=False),
    }
    torch.save(content, tmp_path / "model.pt")
    torch.save(torch.load(folder / "vq.pt", weights_only=True), tmp_path / "vq.pt")
    pair = load_classes(tmp_path)
    pair, classes = (each.under(law_of(2.0)) for each in (pair, classes))
    prompt = torch.tensor([pair.image.encode("1")])
    outputs = [each.target.forward(prompt, each.target_cache(8)) for each in (pair, classes)]
    assert torch.equal(*outputs)


def test_a_file_may_be_named_itself(folder, classes):
    pair = load_entry(
        "llamagen_c2i_b_256", target=str(folder / "model.pt"), dtype="float64", loader=LOADER
    )
    assert pair.image.can_draw
    assert pair.provenance["target"]["digest"] == classes.provenance["target"]["digest"]
    assert pair.provenance["target"]["file"] == "model.pt"
    assert pair.provenance["target"]["engine"] == "lean"


def test_half_precision_is_near_and_its_logits_are_mixed_in_float32(folder, captions):
    half = load_entry(
        "llamagen_t2i_xl_256",
        target=str(folder),
        dtype="bfloat16",
        loader={**LOADER, "weights": "caption.pt", "text_encoder": str(folder / "t5")},
    )
    prompt = half.image.encode("a red cat")
    outputs = []
    for pair in (half, captions):
        pair = pair.under(law_of(2.0))
        outputs.append(
            pair.target.forward(torch.tensor([prompt]), pair.target_cache(140), View(last=1))
        )
    assert outputs[0].dtype == torch.float32
    got, want = (output[0, -1, : files.CODES].double() for output in outputs)
    assert (got - want).abs().max() < 0.1 * want.abs().max()


def test_pictures_obey_the_grid(classes, captions):
    check_pictures_obey_the_grid(classes, [classes.image.encode(str(k)) for k in range(5)])
    check_pictures_obey_the_grid(captions, [captions.image.encode("a red dog")])


@pytest.mark.parametrize("coupling", ["fresh", "maximal", "gumbel"])
def test_jacobi_decoding_draws_the_same_picture(classes, captions, coupling):
    decoder = SpeculativeJacobi(window=4, coupling=coupling, acceptance="oracle")
    for pair, text in ((classes, "2"), (captions, "a photo of a cat")):
        decoder.prepare(pair)
        check_identical(pair, pair.image.encode(text), decoder)
        check_identical(pair, pair.image.encode(text))


def test_a_smaller_model_of_the_family_drafts(folder):
    pair = load_entry(
        "llamagen_c2i_xl_384",
        target=str(folder),
        draft=str(folder),
        dtype="float64",
        needs={"draft"},
        loader={**LOADER, "draft_weights": "draft.pt", "draft_heads": files.HEADS},
    )
    law = law_of(2.0, 0.0)
    pair = pair.under(law)
    prompt = pair.image.encode("4")
    runs = [
        generate(decoder, pair, law, prompt, pair.image.grid.length).tokens
        for decoder in (Autoregressive(), token_sd(3))
    ]
    assert runs[0] == runs[1]
    assert pair.draft is not None and pair.draft.layers == 1
    assert load_classes(folder).draft is None


def test_pixels_are_those_of_the_release(folder, classes):
    tokens = picture(classes)
    state = state_of(folder, "vq.pt")
    codes = torch.tensor(tokens).view(files.SIDE, files.SIDE)
    want = (files.draw(state, codes) * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    got = classes.image.pixels(tokens)
    assert got.shape == (6, 6, 3)
    differing = (torch.tensor(got).permute(2, 0, 1).int() - want.int()).abs()
    assert differing.max() <= 1
    codebook, rows = (classes.image.vectors(space) for space in ("codebook", "rows"))
    torch.testing.assert_close(codebook.norm(dim=-1), torch.ones(files.CODES))
    assert torch.equal(rows, state["quantize.embedding.weight"].float())
    embeddings = state_of(folder, "model.pt")["tok_embeddings.weight"]
    torch.testing.assert_close(classes.image.vectors("embeddings").float(), embeddings.float())
    short = classes.image.pixels(tokens[:4])
    assert (short == classes.image.pixels(tokens[:4] + [0] * 5)).all()


def test_without_its_tokenizer_a_model_still_decodes(folder, tmp_path):
    torch.save(torch.load(folder / "model.pt", weights_only=True), tmp_path / "model.pt")
    pair = load_classes(tmp_path)
    assert not pair.image.can_draw
    check_identical(pair, pair.image.encode("0"), temperatures=(0.0,))
    with pytest.raises(ModelError, match=r"holds no 'vq\.pt'"):
        pair.image.pixels([0])
    with pytest.raises(ModelError, match=r"holds no 'vq\.pt'"):
        pair.image.vectors("rows")


@pytest.mark.parametrize("prompt", ["cat", "-1", "5", "1.0", "²", ""])
def test_a_prompt_that_is_no_class_is_refused(classes, prompt):
    with pytest.raises(ModelError, match="not a class"):
        classes.image.encode(prompt)


def test_a_third_row_is_refused(classes, captions):
    for pair, text in ((classes, "1"), (captions, "cat")):
        with pytest.raises(ModelError, match="two conditioning rows"):
            pair.target._conditioning.rows(pair.image.encode(text), 3)


def test_wrong_files_are_refused_in_one_sentence(folder, tmp_path):
    with pytest.raises(ModelError, match="There is no folder or file"):
        load_classes(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"holds no 'other\.pt'"):
        load_classes(folder, weights="other.pt")
    with pytest.raises(ModelError, match="lacks the weight 'cls_embedding"):
        load_classes(folder, weights="caption.pt")
    with pytest.raises(ModelError, match="does not have 5 heads"):
        load_classes(folder, heads=5)
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="cannot be read|not loaded"):
        load_classes(tmp_path)
    with pytest.raises(ModelError, match="There is no checkpoint folder"):
        load_captions(folder, text_encoder=str(tmp_path / "no_t5"))


def test_options_that_do_not_fit_are_refused(folder):
    with pytest.raises(ConfigError, match=r"model\.loader\.heads"):
        load_classes(folder, heads=0)
    with pytest.raises(ConfigError, match="text_encoder"):
        load_classes(folder, text_encoder="x")
    with pytest.raises(ConfigError, match=r"model\.loader\.draft_heads"):
        load_classes(folder, draft_weights="draft.pt")


class _Dangerous:
    def __reduce__(self):
        return (print, ("this code must not run",))


def test_a_pickle_that_could_run_code_is_refused(tmp_path, capsys):
    torch.save({"model": files.transformer(), "args": _Dangerous()}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"holds more than tensors \(\S*print\)"):
        load_classes(tmp_path)
    nested = argparse.Namespace(hook=_Dangerous())
    torch.save({"model": files.transformer(), "args": nested}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"holds more than tensors \(\S*print\)"):
        load_classes(tmp_path)
    assert not capsys.readouterr().out


def test_without_network_the_reason_is_one_sentence(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(checkpoints.HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match="the hub cannot be reached") as caught:
        load_entry("llamagen_c2i_b_256")
    assert caught.value.exit_code == 2


def test_disk_and_memory_are_checked_before_a_download(monkeypatch):
    monkeypatch.setattr(checkpoints, "ask_hub", lambda *args: None)
    monkeypatch.setattr(published, "hf_hub_download", lambda *args, **kwargs: pytest.fail())
    monkeypatch.setattr(checkpoints, "free_memory", lambda device: 10**9)
    with pytest.raises(ModelError, match=r"needs about 3\.9 GB for its weights"):
        load_entry("llamagen_c2i_xl_384", weights_gb=3.9)
    monkeypatch.setattr(checkpoints, "free_memory", lambda device: 10**15)
    with pytest.raises(ModelError, match=r"needs about 999999\.0 GB of disk space"):
        load_entry("llamagen_c2i_xl_384", weights_gb=999999.0)


@pytest.mark.parametrize("key", ["engine", "device_map"])
def test_other_engines_are_refused(folder, key):
    value = "transformers" if key == "engine" else "auto_"
    with pytest.raises(ModelError, match=f"model.{key}"):
        load_entry("llamagen_c2i_b_256", target=str(folder), loader=LOADER, **{key: value})


@pytest.mark.parametrize(
    ("caption", "clean"),
    [
        ("  A Photo of TWO dogs. ", "a photo of two dogs."),
        ("a cat,a dog", "a cat, a dog"),
        ("“red” — ‘blue’ & green", "\"red\" - 'blue' green"),
        ("see https://a.b/c now", "see now"),
        ("a <b>bold</b> move -", "a bold move"),
        ("a\n  b", "a b"),
    ],
)
def test_captions_are_cleaned_as_in_training(caption, clean):
    assert clean_caption(caption) == clean
