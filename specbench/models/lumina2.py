"""Lumina-mGPT 2.0: a Chameleon-shaped 7B trained from scratch on words and MoVQGAN codes.

Xin et al. 2025, "Lumina-mGPT 2.0: Stand-Alone AutoRegressive Image Modeling". The language model is
Chameleon's, per-head norms of queries and keys included; the tokenizer, the codes' ids and the
image tokenizer are its own. As read in Alpha-VLLM/Lumina-mGPT-2.0: lumina_mgpt/inference_solver.py
(guidance, grid, decoding), lumina_mgpt/data/item_processor.py and convertsation.py (tokens,
template), xllmx/model/tokenizer.py (the token before every prompt), generate_examples/generate.py
(defaults).

The release lets the model write the three tokens before the picture (its beginning, height and
width) under a cut of ten; here they belong to the prompt, since the prompt asks for that size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.chameleon import Chameleon
from specbench.models.checkpoint import Checkpoint
from specbench.models.image_side import Layout, PixelDecoder
from specbench.models.load import load_tokenizer
from specbench.models.movqgan import MoVQDecoder
from specbench.models.one_vocabulary import load_family
from specbench.models.pair import ModelPair
from specbench.models.published import find_files
from specbench.models.state import State
from specbench.schema.model import ModelConfig

IMAGE_TOKENIZER_FILE = "movqgan_270M.ckpt"


def load(config: ModelConfig, *, needs: frozenset[str] = frozenset(), **options: Any) -> ModelPair:
    """Load Lumina-mGPT 2.0; see `one_vocabulary.load_family`.

    A part of a prompt in angle brackets is the token of that name, and the token that stands
    before every text is put before the prompt.

    Raises:
        ConfigError: If an option is not valid.
        ModelError: If a checkpoint is missing, does not fit in memory or cannot be read.
    """
    files = checkpoints.find(config.target, config.target_revision)
    tokenizer = load_tokenizer(files, config)
    return load_family(Lumina2(), config, needs, with_tokens(options, tokenizer))


def with_tokens(options: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return a loader's parameters with ids in place of the names of tokens.

    The published tokenizer has no token for the beginning of a text, and the release then takes
    the one for the end.

    Raises:
        ModelError: If the tokenizer lacks one of them.
    """
    known = tokenizer.get_vocab()
    begin = tokenizer.bos_token_id
    if begin is None:
        begin = tokenizer.eos_token_id

    def named(part: Any) -> Any:
        bracketed = isinstance(part, str) and part.startswith("<") and part.endswith(">")
        return known.get(part) if bracketed else part

    filled = dict(options)
    for key in ("prompt", "unconditional"):
        parts = [named(part) for part in options.get(key) or ()]
        filled[key] = [begin, *parts] if key == "prompt" else parts
        if None in filled[key]:
            raise ModelError(
                "The checkpoint's tokenizer is not that of Lumina-mGPT 2.0",
                f"it lacks a token of {list(options[key])}, or one for the end of a text",
                "Use the tokenizer that is published with the model.",
            )
    return filled


class Lumina2(Chameleon):
    """How its checkpoint is read: as Chameleon's, pixels apart."""

    rounded = True

    def load_pixel_decoder(
        self, files: Checkpoint, settings: Any, layout: Layout, device: torch.device
    ) -> PixelDecoder:
        """Load MoVQGAN, or keep the reason why it is not there."""
        try:
            if layout.image_tokenizer is None:
                raise ModelError(
                    "This model has no image tokenizer of its own",
                    "it draws with MoVQGAN, which is published apart",
                    "Set model.loader.image_tokenizer=ai-forever/MoVQGAN.",
                )
            place, revision = layout.image_tokenizer, layout.image_tokenizer_revision
            file = find_files(place, [IMAGE_TOKENIZER_FILE], revision)[0]
            decoder = MoVQDecoder(State.read(file.fetch()), device)
        except ModelError as missing:
            return PixelDecoder(None, None, missing)
        return PixelDecoder(decoder.codebook, decoder.decode, about=file.describe())

    def code_number(self, name: str) -> int | None:
        """Return None: ids follow the order of the codes (`img_token + 155000`)."""
        return None
