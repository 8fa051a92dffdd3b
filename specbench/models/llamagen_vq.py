"""The image tokenizer of LlamaGen, read into the VQGAN module that it is a variant of.

FoundationVision/LlamaGen (tokenizer/tokenizer_image/vq_model.py, VQ-16 and VQ-8) has taming's
networks with attention at the lowest resolution only, other names, and codes of eight numbers that
are normalised to length one whenever they are read.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.models.state import State
from specbench.models.vqgan import Vqgan, VqganConfig

_RESOLUTION = 256  # any number of pixels: attention stands at the lowest resolution of all sizes
_MIDDLE = ("block_1", "attn_1", "block_2")


def load_vq(path: Path, device: torch.device) -> tuple[Vqgan, Tensor]:
    """Load a published image tokenizer for drawing, in float32.

    Args:
        path: `vq_ds16_c2i.pt`, `vq_ds16_t2i.pt` or `vq_ds8_c2i.pt`.
        device: Where to compute.

    Returns:
        The tokenizer with a normalised codebook, and the rows of the codebook as stored, [K, 8].

    Raises:
        ModelError: If the file is another model's.
    """
    state = State.read(path)
    config = _config(state)
    levels = len(config.multipliers)
    tokenizer = Vqgan(config)
    names = {name: _taming_name(name, levels) for name in state.below("")}
    tokenizer.load_published({new: state[old].float() for old, new in names.items() if new})
    book = tokenizer.quantize.embedding.weight
    rows = book.data.to(device)
    book.data = F.normalize(book.data, dim=-1)
    del tokenizer.encoder  # half of the weights, and drawing has no use for them
    tokenizer.to(device).eval().requires_grad_(False)
    return tokenizer, rows


def _config(state: State) -> VqganConfig:
    """Read the shape off the weights; the number of groups of the norms is always 32."""

    def width(name: str) -> int:
        return int(state[name].shape[0])

    levels = state.count("decoder.conv_blocks.{}.res.0.conv1.weight")
    blocks = state.count("encoder.conv_blocks.0.res.{}.conv1.weight")
    channels = width("encoder.conv_in.weight")
    widths = [width(f"encoder.conv_blocks.{level}.res.0.conv1.weight") for level in range(levels)]
    book: Tensor = state["quantize.embedding.weight"]
    return VqganConfig(
        channels=channels,
        multipliers=tuple(count // channels for count in widths),
        blocks=blocks,
        attention_at=(_RESOLUTION >> (levels - 1),),
        resolution=_RESOLUTION,
        latent_channels=width("post_quant_conv.weight"),
        codes=book.shape[0],
        code_width=book.shape[1],
        image_channels=width("decoder.conv_out.weight"),
    )


def _taming_name(name: str, levels: int) -> str:
    """Return taming's name of a weight, or "" for what only training uses.

    The decoder's levels are listed in the order of use here, and from full resolution there.
    """
    if name == "quantize.codebook_used":
        return ""
    name = re.sub(r"\.mid\.(\d)\.", lambda match: f".mid.{_MIDDLE[int(match[1])]}.", name)
    name = name.replace("encoder.conv_blocks.", "encoder.down.")
    level = re.match(r"decoder\.conv_blocks\.(\d+)\.", name)
    if level:
        name = f"decoder.up.{levels - 1 - int(level[1])}.{name[level.end() :]}"
    return name.replace(".res.", ".block.")
