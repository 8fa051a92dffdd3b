"""Emu3, on a random checkpoint in the published layout."""

from __future__ import annotations

import pytest
import torch
import yaml
from transformers import Emu3Config, Emu3ForConditionalGeneration

from specbench.clock import CpuClock
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.loops.jacobi import Jacobi
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.decoding.request import Request
from specbench.decoding.tree import TreeMask
from specbench.errors import ConfigError, ModelError
from specbench.law import Guidance, Law
from specbench.models import checkpoint
from specbench.models.base import View
from specbench.models.emu3 import Emu3, load
from specbench.models.image_side import Layout
from specbench.models.pixels import to_pixels
from specbench.paths import conf_dir
from specbench.rng import Streams
from specbench.schema.model import ModelConfig
from tests.unit.models.by_hand import check_laws, states, write_tensors
from tests.unit.models.emu3_checkpoints import (
    BOS,
    CODES,
    COLUMNS,
    EOF,
    EOL,
    EOS,
    FIRST,
    GROUPS,
    HEADS,
    IMAGE,
    IMAGE_END,
    IMAGE_START,
    LATENT,
    ROWS,
    THETA,
    config,
    language,
    tokenizer_of_videos,
    write,
)

LAYOUT = {
    "grid": {
        "rows": ROWS,
        "columns": COLUMNS,
        "row_end": EOL,
        "ending": [EOF, IMAGE_END, EOS],
    },
    "first_code": FIRST,
    "codes": CODES,
    "prompt": [BOS, "{caption} a", IMAGE_START, "2*3", IMAGE],
    "unconditional": [BOS, "blurry bad worst bad blurry", IMAGE_START, "2*3", IMAGE],
}
CAPTION = "red circle"
PROMPT = [BOS, 2, 3, 1, IMAGE_START, 7, IMAGE]
NEGATIVE = [BOS, 4, 5, 6, 5, 4, IMAGE_START, 7, IMAGE]
TOKENS = [FIRST + 3, FIRST, FIRST + 19, EOL, FIRST + 8, FIRST + 8, FIRST + 1, EOL, EOF, IMAGE_END]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("emu3"))


def entry(folder, **keys):
    return ModelConfig.from_dict(
        {
            "name": "toy",
            "title": "Toy",
            "modality": "image",
            "loader": {"_target_": "specbench.models.emu3.load"},
            "target": str(folder),
            "dtype": "float64",
            "device": "cpu",
            **keys,
        }
    )


@pytest.fixture(scope="module")
def pair(folder):
    return load(entry(folder), **LAYOUT)


@pytest.fixture(scope="module")
def reference():
    return language()


def behind(state, row, tokens):
    """The logits [T, V] behind the last token of a row and each of `tokens`, as defined."""
    ids = torch.tensor([*row, *tokens])
    x = state["text_model.model.embed_tokens.weight"][ids].double()
    x = states(state, "text_model.model.", x, heads=HEADS, groups=GROUPS, theta=THETA)
    return (x @ state["text_model.lm_head.weight"].double().T)[len(row) - 1 :]


def mixed(state, guidance):
    """The guided logits behind each of `TOKENS`, from separate forwards without padding."""
    full, bare = behind(state, PROMPT, TOKENS), behind(state, NEGATIVE, TOKENS)
    return bare + guidance.scale * (full - bare)


def check(pair, got, want, first=0):
    """The library's rotary tables are float32: agreement ends near 1e-5."""
    for index, logits in enumerate(got):
        forced = pair.image.grid.forced[first + index]
        finite = logits.isfinite().nonzero().flatten().tolist()
        assert finite == ([forced] if forced >= 0 else list(range(FIRST, FIRST + CODES)))
        if forced < 0:
            expected = want[first + index, FIRST:]
            torch.testing.assert_close(logits[FIRST:], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [Guidance(1.0), Guidance(3.0)], ids=repr)
@pytest.mark.parametrize("step", [1, 3, 10])
def test_guided_steps_and_windows_equal_separate_full_forwards(pair, reference, guidance, step):
    """The negative prompt is longer than the caption: the conditional row is the padded one."""
    pair = pair.under(Law(guidance=guidance))
    assert pair.image.encode(CAPTION) == PROMPT
    cache = pair.target.new_cache(1, 64)
    got = [pair.target.forward(torch.tensor([PROMPT]), cache, View(last=1))]
    for start in range(0, len(TOKENS), step):
        got.append(pair.target.forward(torch.tensor([TOKENS[start : start + step]]), cache))
    check(pair, torch.cat(got, 1)[0], mixed(reference, guidance))


def test_rolled_back_windows_and_trees_equal_full_forwards(pair, reference):
    guidance = Guidance(3.0)
    pair = pair.under(Law(guidance=guidance))
    cache = pair.target.new_cache(1, 64)
    pair.target.forward(torch.tensor([PROMPT]), cache)
    pair.target.forward(torch.tensor([[FIRST, FIRST + 1, FIRST + 2]]), cache)
    cache.truncate([len(PROMPT)])
    want = mixed(reference, guidance)
    check(pair, pair.target.forward(torch.tensor([TOKENS[:4]]), cache)[0], want, first=1)
    mask = TreeMask.from_parents((-1, -1, 0))
    tree = torch.tensor([[TOKENS[4], FIRST + 9, TOKENS[5], FIRST + 2]])
    check(pair, pair.target.forward(tree, cache, View(mask=mask))[0, [0, 2]], want, first=5)
    cache.keep([len(PROMPT) + 4], [[0, 2]])
    check(pair, pair.target.forward(torch.tensor([TOKENS[6:8]]), cache)[0], want, first=7)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_sample_obeys_the_grid_and_windows_emit_the_tokens_of_plain_decoding(
    pair, temperature
):
    law = Law(temperature, top_k=8, guidance=Guidance(3.0))
    pair = pair.under(law)
    grid = pair.image.grid
    windows = [Jacobi(window=5)] + [
        SpeculativeJacobi(5, coupling, acceptance="oracle")
        for coupling in ("fresh", "maximal", "gumbel")
    ]
    for seed in range(4):
        request = Request(PROMPT, grid.length, law, Streams(seed))
        plain = Autoregressive().generate(pair, request, CpuClock()).tokens
        assert len(plain) == grid.length
        for token, forced in zip(plain, grid.forced, strict=True):
            assert token == forced if forced >= 0 else FIRST <= token < FIRST + CODES
        for windowed in windows:
            assert windowed.generate(pair, request, CpuClock()).tokens == plain


def test_laws_are_those_of_the_definition_and_of_the_library(pair, reference):
    """The library's class, given the very tensors, agrees with both."""
    guidance = Guidance(3.0)
    pair = pair.under(Law(guidance=guidance))
    cache = pair.target.new_cache(1, 64)
    got = pair.target.forward(torch.tensor([[*PROMPT, *TOKENS]]), cache)[0, len(PROMPT) - 1 :]
    places = [place for place, token in enumerate(pair.image.grid.forced[:10]) if token < 0]
    want = mixed(reference, guidance)
    check_laws(got[places, FIRST:], want[places, FIRST:], top_k=8)
    with torch.inference_mode():
        rows = [
            library()(torch.tensor([[*row, *TOKENS]])).logits[0, len(row) - 1 :]
            for row in (PROMPT, NEGATIVE)
        ]
    theirs = rows[1] + 3.0 * (rows[0] - rows[1])
    check_laws(got[places, FIRST:], theirs[places, FIRST:], top_k=8)


def library():
    """The library's class with the tensors of the checkpoint, every one of them in its place."""
    settings = Emu3Config(**config())
    module = Emu3ForConditionalGeneration(settings)
    renamed = {
        name.replace("text_model.lm_head", "lm_head").replace(
            "text_model.model.", "model.text_model."
        ): tensor
        for name, tensor in language().items()
    }
    pictures = {f"model.vqmodel.{name}": t for name, t in tokenizer_of_videos().items()}
    module.load_state_dict({**renamed, **pictures})
    return module.double().eval()


def test_pixels_are_those_of_transformers(pair):
    tokens = [*TOKENS, EOS]
    module = library().float()
    with torch.inference_mode():
        want = module.decode_image_tokens(
            image_tokens=torch.tensor([tokens]), height=ROWS, width=COLUMNS
        )
    assert pair.image.can_draw
    assert pair.image.pixels(tokens).shape == (2 * ROWS, 2 * COLUMNS, 3)
    assert (pair.image.pixels(tokens) == to_pixels(want, rounded=False)).all()
    codebook = tokenizer_of_videos()["quantize.embedding.weight"]
    torch.testing.assert_close(pair.image.vectors("codebook"), codebook)


def test_pixels_can_be_drawn_in_bfloat16_as_sjd_does(folder, pair):
    tokens = [*TOKENS, EOS]
    half = Emu3ForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        want = half.decode_image_tokens(
            image_tokens=torch.tensor([tokens]), height=ROWS, width=COLUMNS
        )
    drawing = load(entry(folder), **LAYOUT, pixel_dtype="bfloat16")
    got = drawing.image.pixels(tokens)
    assert (got == to_pixels(want, rounded=False)).all()
    assert (got != pair.image.pixels(tokens)).any()
    assert torch.equal(drawing.image.vectors("rows"), pair.image.vectors("rows"))
    with pytest.raises(ConfigError, match="pixel_dtype"):
        load(entry(folder), **LAYOUT, pixel_dtype="half")


@pytest.mark.parametrize("wrong", ["missing", "another shape"])
def test_a_checkpoint_without_pixels_still_decodes(tmp_path, wrong):
    write(tmp_path, pixels=False)
    if wrong == "another shape":
        pictures = {f"vqmodel.{name}": t for name, t in tokenizer_of_videos().items()}
        pictures["vqmodel.quantize.embedding.weight"] = torch.zeros(CODES, LATENT + 1)
        write_tensors(tmp_path, {**language(), **pictures})
    pair = load(entry(tmp_path), **LAYOUT)
    assert not pair.image.can_draw
    with pytest.raises(ModelError, match="pixel decoder") as caught:
        pair.image.pixels(TOKENS)
    assert caught.value.exit_code == 2
    assert ("lacks" if wrong == "missing" else "size mismatch") in caught.value.why


def test_names_of_later_releases_load_as_well(tmp_path, pair):
    """Conversions by newer releases of the library keep all parts below `model.`."""
    write(tmp_path)
    moved = {
        name.replace("text_model.lm_head", "lm_head").replace(
            "text_model.model.", "model.text_model."
        ): tensor
        for name, tensor in language().items()
    }
    pictures = {f"model.vqmodel.{name}": t for name, t in tokenizer_of_videos().items()}
    write_tensors(tmp_path, {**moved, **pictures}, files=1)
    newer = load(entry(tmp_path), **LAYOUT)
    prompt = torch.tensor([PROMPT])
    pair, newer = (each.under(Law(guidance=Guidance(3.0))) for each in (pair, newer))
    left, right = (
        each.target.forward(prompt, each.target.new_cache(1, 64)) for each in (pair, newer)
    )
    assert torch.equal(left, right)
    assert (newer.image.pixels(TOKENS) == pair.image.pixels(TOKENS)).all()


def test_three_rows_are_refused(pair):
    pair = pair.under(Law(guidance=Guidance(3.0, "constant", 1.2)))
    with pytest.raises(ModelError, match="two conditioning rows"):
        pair.target.forward(torch.tensor([PROMPT]), pair.target.new_cache(1, 64))


def test_memory_is_asked_for_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setattr(Emu3, "read_settings", lambda *_: pytest.fail("read too early"))
    with pytest.raises(ModelError, match=r"needs about 99999\.0 GB"):
        load(entry(folder, weights_gb=99999), **LAYOUT)


def published():
    values = yaml.safe_load((conf_dir() / "model" / "emu3.yaml").read_text())
    return values, {key: value for key, value in values["loader"].items() if key != "_target_"}


def test_without_network_one_clear_error(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(checkpoint, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(checkpoint.HfApi, "model_info", unreachable)
    values, options = published()
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        load(ModelConfig.from_dict(values), **options)
    assert caught.value.exit_code == 2


def test_the_entry_holds_what_the_authors_publish():
    values, options = published()
    layout = Layout.read(options)
    assert layout.grid.length == 90 * 91 + 3
    assert layout.grid.forced[90] == 151846
    assert layout.grid.forced[-4:] == (151846, 151847, 151853, 151850)
    assert (layout.first_code, layout.first_code + layout.codes) == (151854, 184622)
    assert layout.prompt[1] == "{caption} masterpiece, film grained, best quality."
    assert layout.unconditional[1].endswith("signature, watermark, username, blurry.")
    assert layout.prompt[2:] == layout.unconditional[2:] == (151852, "90*90", 151851)
    assert values["sampling"] == {"temperature": 1.0, "top_k": 2048, "cfg_scale": 3.0}
