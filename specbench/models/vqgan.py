"""The VQGAN image tokenizer: pixels to code ids and back.

One convolutional encoder, one codebook, one convolutional decoder (Esser et al. 2021, "Taming
Transformers for High-Resolution Image Synthesis", section 3.1). Modules carry the names of
CompVis/taming-transformers (taming/models/vqgan.py, taming/modules/diffusionmodules/model.py), as
does the copy that Chameleon, Lumina-mGPT and Anole use (facebookresearch/chameleon,
chameleon/inference/vqgan.py), so their published state dictionaries load without a map of names.
This module computes only; training lies in `specbench/training/pictures/vq.py`.

Shape legend: B pictures, C channels, H x W pixels, h x w codes, D width of a code, K codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specbench.errors import ModelError

# Parts of published training checkpoints that decoding has no use for.
_TRAINING_ONLY = ("loss.", "model_ema.", "colorize")


@dataclass(frozen=True)
class VqganConfig:
    """The shape of a tokenizer; defaults are those of Chameleon's published one.

    Attributes:
        channels: Channels at full resolution.
        multipliers: Channels of every resolution as multiples of `channels`; each resolution after
            the first halves height and width.
        blocks: Residual blocks at every resolution of the encoder; the decoder has one more.
        attention_at: Resolutions (pixels) whose blocks are followed by attention.
        middle_attention: Whether the lowest resolution has an attention block between its two
            middle residual blocks.
        resolution: Pixels of a side that the attention resolutions count from.
        latent_channels: Channels between encoder and quantizer.
        codes: K, entries of the codebook.
        code_width: D, width of an entry.
        norm_groups: Groups of every GroupNorm; 32 in all published checkpoints.
        image_channels: Colour channels.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    attention_at: tuple[int, ...] = ()
    middle_attention: bool = True
    resolution: int = 512
    latent_channels: int = 256
    codes: int = 8192
    code_width: int = 256
    norm_groups: int = 32
    image_channels: int = 3

    @property
    def factor(self) -> int:
        """Pixels of a code's side."""
        return 1 << (len(self.multipliers) - 1)

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> VqganConfig:
        """Read taming's form: `ddconfig`, `n_embed`, `embed_dim`.

        Args:
            params: `model.params` of a published `vqgan.yaml`, or the content of a `config.json`.

        Raises:
            ModelError: A key is missing.
        """
        try:
            network = params["ddconfig"]
            return cls(
                channels=network["ch"],
                multipliers=tuple(network["ch_mult"]),
                blocks=network["num_res_blocks"],
                attention_at=tuple(network["attn_resolutions"]),
                middle_attention=network.get("attn_type", "vanilla") != "none",
                resolution=network["resolution"],
                latent_channels=network["z_channels"],
                codes=params["n_embed"],
                code_width=params["embed_dim"],
                norm_groups=network.get("num_groups", 32),
                image_channels=network["in_channels"],
            )
        except KeyError as error:
            raise ModelError(
                "The image tokenizer's configuration cannot be read.",
                why=f"The key {error} is missing.",
                fix="Give a configuration in the form of taming's vqgan.yaml: model.params with "
                "ddconfig, n_embed and embed_dim.",
            ) from error

    def to_params(self) -> dict[str, Any]:
        """Return taming's form, which `from_params` reads."""
        return {
            "ddconfig": {
                "ch": self.channels,
                "ch_mult": list(self.multipliers),
                "num_res_blocks": self.blocks,
                "attn_resolutions": list(self.attention_at),
                "attn_type": "vanilla" if self.middle_attention else "none",
                "resolution": self.resolution,
                "z_channels": self.latent_channels,
                "double_z": False,
                "dropout": 0.0,
                "num_groups": self.norm_groups,
                "in_channels": self.image_channels,
                "out_ch": self.image_channels,
            },
            "n_embed": self.codes,
            "embed_dim": self.code_width,
        }


def _norm(config: VqganConfig, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(config.norm_groups, channels, eps=1e-6)


class _Residual(nn.Module):  # type: ignore[misc]
    """Norm, swish, convolution, twice, around a shortcut."""

    def __init__(self, config: VqganConfig, inside: int, outside: int) -> None:
        super().__init__()
        self.norm1 = _norm(config, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm2 = _norm(config, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return self.nin_shortcut(x) + hidden


class _Attention(nn.Module):  # type: ignore[misc]
    """One head of attention between all places of a picture."""

    def __init__(self, config: VqganConfig, channels: int) -> None:
        super().__init__()
        self.norm = _norm(config, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        query, key, value = (
            part(hidden).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return x + self.proj_out(mixed.reshape(x.shape))


class _Down(nn.Module):  # type: ignore[misc]
    """Half the height and width; the one column and row of padding stand at the far edges."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Up(nn.Module):  # type: ignore[misc]
    """Double the height and width by repetition, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Middle(nn.Module):  # type: ignore[misc]
    def __init__(self, config: VqganConfig, channels: int) -> None:
        super().__init__()
        self.block_1 = _Residual(config, channels, channels)
        self.attn_1 = _Attention(config, channels) if config.middle_attention else nn.Identity()
        self.block_2 = _Residual(config, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Level(nn.Module):  # type: ignore[misc]
    """The residual blocks of one resolution, each followed by attention where configured."""

    def __init__(self, config: VqganConfig, widths: list[tuple[int, int]], attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Residual(config, *width) for width in widths)
        self.attn = nn.ModuleList(
            _Attention(config, outside) for _, outside in (widths if attention else [])
        )

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        return x


def _widths(inside: int, outside: int, blocks: int) -> list[tuple[int, int]]:
    return [(inside if index == 0 else outside, outside) for index in range(blocks)]


class _Encoder(nn.Module):  # type: ignore[misc]
    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        width = config.channels
        self.conv_in = nn.Conv2d(config.image_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(config.multipliers):
            outside = config.channels * multiplier
            attention = config.resolution // 2**level in config.attention_at
            part = _Level(config, _widths(width, outside, config.blocks), attention)
            if level < len(config.multipliers) - 1:
                part.downsample = _Down(outside)
            self.down.append(part)
            width = outside
        self.mid = _Middle(config, width)
        self.norm_out = _norm(config, width)
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.conv_in(pixels)
        for level in self.down:
            hidden = level(hidden)
            if hasattr(level, "downsample"):
                hidden = level.downsample(hidden)
        return self.conv_out(F.silu(self.norm_out(self.mid(hidden))))


class _Decoder(nn.Module):  # type: ignore[misc]
    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        width = config.channels * config.multipliers[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.mid = _Middle(config, width)
        levels = []
        for level in reversed(range(len(config.multipliers))):
            outside = config.channels * config.multipliers[level]
            attention = config.resolution // 2**level in config.attention_at
            part = _Level(config, _widths(width, outside, config.blocks + 1), attention)
            if level > 0:
                part.upsample = _Up(outside)
            levels.append(part)
            width = outside
        # The published order of `up` counts from full resolution, against the order of use.
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(config, width)
        self.conv_out = nn.Conv2d(width, config.image_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            hidden = level(hidden)
            if hasattr(level, "upsample"):
                hidden = level.upsample(hidden)
        return self.conv_out(F.silu(self.norm_out(hidden)))


class _Quantizer(nn.Module):  # type: ignore[misc]
    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codes, config.code_width)


class Vqgan(nn.Module):  # type: ignore[misc]
    """An image tokenizer.

    Args:
        config: Its shape.
    """

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quantize = _Quantizer(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent_channels, 1)

    @property
    def codebook(self) -> Tensor:
        """The codes' vectors, [K, D]; distances between them are Euclidean."""
        return self.quantize.embedding.weight

    def latents(self, pixels: Tensor) -> Tensor:
        """Return what the quantizer rounds, [B, D, h, w], for pixels [B, C, H, W] in -1..1."""
        return self.quant_conv(self.encoder(pixels))

    def nearest(self, latents: Tensor) -> Tensor:
        """Return the id of the nearest code at every place, [B, h, w], for [B, D, h, w]."""
        points = latents.permute(0, 2, 3, 1)
        codebook = self.codebook
        # Of |z - e|^2 the part |z|^2 is the same for every code.
        distances = codebook.square().sum(1) - 2 * points @ codebook.T
        return distances.argmin(-1)

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Return unclamped pixels [B, C, H, W] for latents [B, D, h, w], quantised or not."""
        return self.decoder(self.post_quant_conv(latents))

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return code ids [B, h, w] for pixels [B, C, H, W] in -1..1."""
        return self.nearest(self.latents(pixels))

    @torch.inference_mode()
    def decode(self, ids: Tensor) -> Tensor:
        """Return pixels [B, C, H, W] in -1..1 for code ids [B, h, w]."""
        latents = F.embedding(ids, self.codebook).permute(0, 3, 1, 2)
        return self.reconstruct(latents).clamp(-1, 1)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Load a published state dictionary; what only training needs is passed over.

        Args:
            state: Names and tensors as taming's and Chameleon's checkpoints hold them.

        Raises:
            ModelError: A weight is missing, unknown or of another shape.
        """
        kept = {
            name: tensor for name, tensor in state.items() if not name.startswith(_TRAINING_ONLY)
        }
        own = self.state_dict()
        wrong = [f"'{name}' is missing" for name in own if name not in kept]
        wrong += [f"'{name}' is not a part of it" for name in kept if name not in own]
        wrong += [
            f"'{name}' has the shape {list(kept[name].shape)} and not {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in kept and kept[name].shape != tensor.shape
        ]
        if wrong:
            raise ModelError(
                "The image tokenizer's weights do not fit its configuration",
                wrong[0] + (f"; {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""),
                "Give the configuration that was published with these weights.",
            )
        self.load_state_dict(kept)
