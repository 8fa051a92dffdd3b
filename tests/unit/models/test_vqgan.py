"""The image tokenizer: published names, transformers' encoder, rounding to codes, loading."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from specbench.errors import ModelError
from specbench.models import vqgan
from specbench.models.vqgan import Vqgan, VqganConfig
from specbench.models.vqgan_files import load_vqgan
from specbench.training.pictures.vq import CONFIG, save_vq

SMALL = VqganConfig(
    channels=8,
    multipliers=(1, 2),
    blocks=1,
    attention_at=(8,),
    resolution=16,
    latent_channels=8,
    codes=32,
    code_width=4,
    norm_groups=4,
)


def build(config: VqganConfig, seed: int = 0) -> Vqgan:
    torch.manual_seed(seed)
    return Vqgan(config).eval()


@pytest.fixture(scope="module")
def theirs() -> ChameleonVQVAE:
    torch.manual_seed(1)
    config = ChameleonVQVAEConfig(
        embed_dim=6,
        num_embeddings=40,
        latent_channels=5,
        resolution=32,
        base_channels=32,
        channel_multiplier=[1, 1, 2],
        num_res_blocks=2,
        attn_resolutions=[16],
    )
    model = ChameleonVQVAE(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3) if parameter.ndim == 1 else None
    with torch.no_grad():
        hidden = model.encode(torch.rand(4, 3, 32, 32) * 2 - 1).last_hidden_state
        points = model.quant_conv(hidden).permute(0, 2, 3, 1).reshape(-1, 6)
    model.quantize.embedding.weight.data.copy_(points[torch.randperm(len(points))[:40]])
    return model.eval().double()


def ours(theirs: ChameleonVQVAE) -> Vqgan:
    config = VqganConfig(
        channels=32,
        multipliers=(1, 1, 2),
        blocks=2,
        attention_at=(16,),
        resolution=32,
        latent_channels=5,
        codes=40,
        code_width=6,
    )
    model = build(config)
    decoder = {f"decoder.{name}": value for name, value in model.decoder.state_dict().items()}
    model.double().load_published({**theirs.state_dict(), **decoder})
    return model


def test_encodes_as_transformers_does(theirs) -> None:
    pixels = torch.rand(3, 3, 32, 32, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        expected = theirs.encode(pixels)
    model = ours(theirs)
    torch.testing.assert_close(model.encoder(pixels), expected.last_hidden_state)
    ids = model.encode(pixels)
    assert ids.shape == (3, 8, 8) and len(ids.unique()) > 5
    assert ids.flatten().tolist() == expected.image_tokens.tolist()


def test_padding_at_the_near_edges_is_seen(theirs, monkeypatch) -> None:
    pixels = torch.rand(1, 3, 32, 32, dtype=torch.float64) * 2 - 1
    expected = theirs.encode(pixels).last_hidden_state

    def near(self, x):
        return self.conv(nn.functional.pad(x, (1, 0, 1, 0)))

    monkeypatch.setattr(vqgan._Down, "forward", near)
    assert (ours(theirs).encoder(pixels) - expected).abs().max() > 0.01


def test_published_names_and_shapes() -> None:
    """Names and shapes of Chameleon's vqgan.ckpt, as its configuration gives them."""
    with torch.device("meta"):
        state = Vqgan(VqganConfig()).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes["quantize.embedding.weight"] == (8192, 256)
    assert shapes["encoder.down.4.block.0.nin_shortcut.weight"] == (512, 256, 1, 1)
    assert shapes["encoder.down.3.downsample.conv.weight"] == (256, 256, 3, 3)
    assert shapes["encoder.mid.attn_1.proj_out.weight"] == (512, 512, 1, 1)
    assert shapes["decoder.up.4.block.2.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["decoder.up.0.block.0.norm1.weight"] == (128,)
    assert shapes["decoder.up.1.block.0.nin_shortcut.weight"] == (128, 256, 1, 1)
    assert shapes["decoder.conv_out.weight"] == (3, 128, 3, 3)
    assert shapes["post_quant_conv.weight"] == (256, 256, 1, 1)
    assert "decoder.up.0.upsample.conv.weight" not in shapes
    assert "encoder.down.4.downsample.conv.weight" not in shapes
    assert not any(".attn." in name for name in shapes)


def test_the_last_level_of_the_decoder_works_at_full_resolution() -> None:
    model, sides = build(SMALL), {}
    for index, level in enumerate(model.decoder.up):
        level.block[0].register_forward_hook(
            lambda _, inputs, __, index=index: sides.update({index: inputs[0].shape[-1]})
        )
    model.decode(torch.zeros(1, 8, 8, dtype=torch.long))
    assert sides == {0: 16, 1: 8}


def test_rounds_to_the_nearest_code() -> None:
    model = build(SMALL)
    model.codebook.data = torch.randn_like(model.codebook) * torch.linspace(0.2, 3, 32)[:, None]
    latents = torch.randn(2, 4, 8, 8)
    points = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    expected = torch.cdist(points, model.codebook).argmin(1).view(2, 8, 8)
    assert torch.equal(model.nearest(latents), expected)
    spelt = model.codebook[expected].permute(0, 3, 1, 2)
    assert torch.equal(model.nearest(spelt), expected)


def test_rows_of_a_batch_do_not_meet() -> None:
    model = build(SMALL)
    pixels = torch.rand(3, 3, 16, 16) * 2 - 1
    ids = model.encode(pixels)
    assert torch.equal(ids[1:2], model.encode(pixels[1:2]))
    torch.testing.assert_close(model.decode(ids)[1:2], model.decode(ids[1:2]))


def test_decoded_pixels_are_in_range() -> None:
    model = build(SMALL)
    model.codebook.data.mul_(100)
    model.decoder.conv_out.weight.data.mul_(100)
    pixels = model.decode(torch.randint(0, 32, (2, 8, 8)))
    assert pixels.shape == (2, 3, 16, 16)
    assert pixels.min() == -1 and pixels.max() == 1


def test_attention_stands_where_the_configuration_says() -> None:
    names = build(SMALL).state_dict()
    assert "encoder.down.1.attn.0.q.weight" in names and "decoder.up.1.attn.1.k.weight" in names
    assert not any(name.startswith("encoder.down.0.attn") for name in names)
    plain = dataclasses.replace(SMALL, attention_at=(), middle_attention=False)
    assert not any("attn" in name for name in build(plain).state_dict())


def test_configuration_reads_what_it_writes() -> None:
    for config in (SMALL, CONFIG, VqganConfig()):
        assert VqganConfig.from_params(json.loads(json.dumps(config.to_params()))) == config
    assert CONFIG.factor == 4


def test_published_yaml_needs_no_keys_of_ours() -> None:
    params = VqganConfig().to_params()
    for key in ("attn_type", "num_groups"):
        del params["ddconfig"][key]
    assert VqganConfig.from_params({**params, "lossconfig": {}}) == VqganConfig()


def test_missing_key_is_named() -> None:
    with pytest.raises(ModelError, match="n_embed"):
        VqganConfig.from_params({"ddconfig": SMALL.to_params()["ddconfig"]})


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    model = build(SMALL)
    save_vq(model, tmp_path)
    loaded = load_vqgan(tmp_path)
    assert loaded.config == SMALL and not loaded.codebook.requires_grad
    assert torch.equal(loaded.codebook, model.codebook.half().float())
    again = tmp_path / "again"
    save_vq(loaded, again)
    assert (again / "model.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


def test_training_weights_are_passed_over_and_others_are_not() -> None:
    model = build(SMALL)
    state = model.state_dict()
    model.load_published({**state, "loss.discriminator.main.0.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="do not fit"):
        model.load_published({**state, "decoder.extra.weight": torch.zeros(1)})
    del state["quant_conv.weight"]
    with pytest.raises(ModelError, match="quant_conv"):
        model.load_published(state)


def test_incomplete_folder_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="holds no image tokenizer"):
        load_vqgan(tmp_path)
    save_vq(build(SMALL), tmp_path)
    wider = dataclasses.replace(SMALL, code_width=5)
    save_file(build(wider).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="do not fit"):
        load_vqgan(tmp_path)
