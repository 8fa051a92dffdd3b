"""Emu3: a Llama over words and codes (Wang et al. 2024, "Next-Token Prediction is All You Need").

Configuration, weights and the pixel decoder are those of transformers; what runs is the lean
decoder. Prompt, negative prompt and the tokens behind the last row follow the authors' script
(baaivision/Emu3, image_generation.py, emu3/mllm/processing_emu3.py and utils_emu3.py): the prompt's
picture part is "HEIGHT*WIDTH" in codes between its begin and image tokens, and behind the last
row's end come end of frame, end of image and end of text.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import Emu3Config, Emu3ForConditionalGeneration
from transformers.models.emu3.modeling_emu3 import Emu3VQVAE

from specbench.errors import ModelError
from specbench.models.checkpoint import Checkpoint
from specbench.models.image_side import Layout, PixelDecoder
from specbench.models.one_vocabulary import Family, load_family
from specbench.models.pair import ModelPair
from specbench.models.pixels import PIXEL_DTYPES
from specbench.models.shards import tensors_below
from specbench.schema.group import cannot_be
from specbench.schema.model import ModelConfig

_CODE_NAME = re.compile(r"<\|visual token (\d+)\|>")


def load(
    config: ModelConfig, *, needs: frozenset[str] = frozenset({"draft"}), **options: Any
) -> ModelPair:
    """Load an Emu3 model; see `one_vocabulary.load_family`.

    The further key `pixel_dtype` says in what pixels are computed.
    """
    word = options.pop("pixel_dtype", "float32")
    if word not in PIXEL_DTYPES:
        allowed = f"one of {', '.join(PIXEL_DTYPES)}"
        raise cannot_be("model.loader.pixel_dtype", word, allowed)
    return load_family(Emu3(PIXEL_DTYPES[word]), config, needs, options)


class Emu3(Family):
    """How checkpoints of the family are read.

    Args:
        pixel_dtype: In what pixels are computed.
    """

    settings_kind = Emu3Config
    module_kind = Emu3ForConditionalGeneration
    body = "model.text_model"

    def __init__(self, pixel_dtype: torch.dtype = torch.float32) -> None:
        self._pixel_dtype = pixel_dtype

    def load_pixel_decoder(
        self, files: Checkpoint, settings: Any, layout: Layout, device: torch.device
    ) -> PixelDecoder:
        """Load the checkpoint's own video tokenizer, of which a picture is one frame."""
        # Published before the library moved its parts below `model.`, and after.
        tensors = tensors_below(files, "vqmodel.") or tensors_below(files, "model.vqmodel.")
        with torch.device("meta"):
            module = Emu3VQVAE(settings.vq_config)
        missing = set(module.state_dict()) - set(tensors)
        why = f"its checkpoint lacks {len(missing)} tensors of 'vqmodel'" if missing else ""
        try:
            module.load_state_dict(tensors, strict=False, assign=True)
        except RuntimeError as error:  # a tensor of another shape
            why = str(error).strip().splitlines()[-1].strip()
        if why:
            lacking = ModelError(
                f"The pixel decoder of '{files.source}' is missing",
                why,
                "Use a checkpoint with all parts, such as BAAI/Emu3-Gen-hf.",
            )
            return PixelDecoder(None, None, lacking)
        codebook = module.quantize.embedding.weight.detach().to(device, torch.float32)
        module = module.to(device, self._pixel_dtype).eval().requires_grad_(False)
        return PixelDecoder(codebook, torch.inference_mode()(module.decode))

    def code_number(self, name: str) -> int | None:
        """Read a code's number off its name."""
        match = _CODE_NAME.fullmatch(name)
        return None if match is None else int(match[1])
