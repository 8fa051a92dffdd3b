"""The decoder of SBER-MoVQGAN: a VQGAN whose norms are modulated by the codes themselves.

Zheng et al. 2022, "MoVQ: Modulating Quantized Vectors for High-Fidelity Image Generation", as
published by ai-forever/MoVQGAN (movqgan/modules/vqvae/movq_modules.py, movqgan/models/vqgan.py) and
used by Lumina-mGPT 2.0. transformers' Emu3 has a relative of it for video, with convolutions over
time and other names, which no configuration turns into this one. Here it is written over the
published names: the shape of the network (levels, blocks, attention) is read off the weights.

Shapes: C channels, E code width, h x w codes, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.errors import ModelError
from specbench.models.state import State

_GROUPS = 32
_EPSILON = 1e-6


class MoVQDecoder:
    """Turns codes into pixels.

    Args:
        state: The published weights; those of the encoder are passed over.
        device: Where to compute; in float32.

    Attributes:
        codebook: [K, E].

    Raises:
        ModelError: If the weights are those of another model.
    """

    def __init__(self, state: State, device: torch.device) -> None:
        self.codebook = state["quantize.embedding.weight"].to(device, torch.float32)
        self._to_latents = [
            state[f"post_quant_conv.{part}"].to(device, torch.float32)
            for part in ("weight", "bias")
        ]
        decoder = state.below("decoder.")
        tensors = {name: value.to(device, torch.float32) for name, value in decoder.items()}
        self._state = State(tensors, Path("decoder"))
        self._levels = self._state.count("up.{}.block.0.conv1.weight")
        self._blocks = self._state.count("up.0.block.{}.conv1.weight")
        if not (self._levels and self._blocks):
            raise ModelError(
                "The image tokenizer's file holds no decoder of MoVQGAN",
                "it lacks the weights below 'decoder.up.0.block.0'",
                "Use the published movqgan_270M.ckpt.",
            )

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Return pixels [1, 3, H, W], -1 to 1 or a little beyond, of codes [1, h, w]."""
        quantized = F.embedding(codes, self.codebook).permute(0, 3, 1, 2)
        x = self._conv("conv_in", F.conv2d(quantized, *self._to_latents))
        x = self._residual("mid.block_1", x, quantized)
        x = self._attend("mid.attn_1", x, quantized)
        x = self._residual("mid.block_2", x, quantized)
        for level in reversed(range(self._levels)):
            for block in range(self._blocks):
                x = self._residual(f"up.{level}.block.{block}", x, quantized)
                if f"up.{level}.attn.{block}.q.weight" in self._state:
                    x = self._attend(f"up.{level}.attn.{block}", x, quantized)
            if level:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self._conv(f"up.{level}.upsample.conv", x)
        return self._conv("conv_out", F.silu(self._norm("norm_out", x, quantized)))

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight = self._state[f"{name}.weight"]
        return F.conv2d(x, weight, self._state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def _norm(self, name: str, x: Tensor, quantized: Tensor) -> Tensor:
        """Normalise in groups, then scale and shift every place by its code.

        The release enlarges the codes before its pointwise maps; repeating their results is the
        same and costs less.
        """
        weight = self._state[f"{name}.norm_layer.weight"]
        normed = F.group_norm(
            x, _GROUPS, weight, self._state[f"{name}.norm_layer.bias"], eps=_EPSILON
        )
        scale, shift = (
            F.interpolate(self._conv(f"{name}.{part}", quantized), size=x.shape[-2:])
            for part in ("conv_y", "conv_b")
        )
        return torch.addcmul(shift, normed, scale)

    def _residual(self, name: str, x: Tensor, quantized: Tensor) -> Tensor:
        hidden = self._conv(f"{name}.conv1", F.silu(self._norm(f"{name}.norm1", x, quantized)))
        hidden = self._conv(f"{name}.conv2", F.silu(self._norm(f"{name}.norm2", hidden, quantized)))
        if f"{name}.nin_shortcut.weight" in self._state:
            x = self._conv(f"{name}.nin_shortcut", x)
        return x + hidden

    def _attend(self, name: str, x: Tensor, quantized: Tensor) -> Tensor:
        """One head over all places."""
        hidden = self._norm(f"{name}.norm", x, quantized)
        query, key, value = (
            self._conv(f"{name}.{part}", hidden).flatten(2).transpose(1, 2) for part in "qkv"
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return x + self._conv(f"{name}.proj_out", mixed.reshape(x.shape))
