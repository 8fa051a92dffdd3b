"""Load image models that keep words and codes in one vocabulary.

The families differ in how a checkpoint becomes a lean body and where their pixel decoder lies; the
rest, from finding files to the pair that a decoder is given, is the same and stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.checkpoint import Checkpoint
from specbench.models.decoder import LeanDecoder
from specbench.models.guided import GuidedModel
from specbench.models.image_side import CodePictures, Layout, PixelDecoder, Prompts, code_numbers
from specbench.models.lean_weights import body_weights, projection
from specbench.models.load import (
    check_vocabularies,
    describe,
    dtype_reason,
    find_all,
    load_tokenizer,
    pick_dtype,
)
from specbench.models.pair import About, ModelPair
from specbench.models.pretrained import read_module, read_settings
from specbench.models.published import check_engine
from specbench.schema.model import ModelConfig


class Family:
    """How the checkpoints of a family are read.

    Attributes:
        rounded: Whether its pixels are rounded to bytes or cut (`pixels.to_pixels`).
        settings_kind: The class of its configuration in transformers.
        module_kind: The class of its checkpoints there.
        body: The path of the language model's body below a module.
    """

    rounded = False
    settings_kind: Any
    module_kind: Any
    body = "model"

    def read_settings(self, files: Checkpoint) -> Any:
        """Read a checkpoint's configuration.

        Raises:
            ModelError: If it has none that the lean decoder can follow.
        """
        settings = read_settings(files, self.settings_kind)
        settings.vocabulary_map = settings.vocabulary_map or {}
        return settings

    def load_body(
        self,
        files: Checkpoint,
        settings: Any,
        layout: Layout,
        device: torch.device,
        dtype: torch.dtype,
    ) -> LeanDecoder:
        """Load the language model with a head over the codes alone.

        Raises:
            ModelError: If the checkpoint cannot be read, or its vocabulary ends before the codes.
        """
        text = settings.get_text_config()
        codes = slice(layout.first_code, layout.first_code + layout.codes)
        if codes.stop > text.vocab_size:
            raise ModelError(
                f"'{files.source}' has no codes where the model entry says",
                f"its vocabulary ends at {text.vocab_size}, the codes at {codes.stop}",
                "Correct model.loader.first_code and model.loader.codes.",
            )
        kind, beside = self.module_kind, ["model.vqmodel."]
        module = read_module(kind, files, settings, dtype, beside=beside).module
        head = projection(module.lm_head.weight[codes], device=device, dtype=dtype)
        body, first = module.get_submodule(self.body), codes.start
        weights = body_weights(body, text, head=head, device=device, dtype=dtype, head_first=first)
        return LeanDecoder(weights, files.source)

    def load_pixel_decoder(
        self, files: Checkpoint, settings: Any, layout: Layout, device: torch.device
    ) -> PixelDecoder:
        """Load the image tokenizer, or keep the reason why it is not there."""
        raise NotImplementedError

    def code_number(self, name: str) -> int | None:
        """Return the image tokenizer's number of a code token, None for another token.

        None for all where the ids follow the order of the codes.
        """
        return None


def load_family(
    family: Family, config: ModelConfig, needs: frozenset[str], options: Mapping[str, Any]
) -> ModelPair:
    """Load what a model entry names.

    Args:
        family: How checkpoints of this family are read.
        config: The model entry.
        needs: What the measured methods need of the models; drafts are left out where no method
            needs them.
        options: The further keys of the entry's loader; see `Layout`.

    Raises:
        ConfigError: If an option is not valid.
        ModelError: If a checkpoint is missing, does not fit in memory or cannot be read.
    """
    layout = Layout.read(options)
    check_engine(config)
    device, target_files, draft_files = find_all(config, needs, layout.grid.length)
    dtype = pick_dtype(config.dtype, device, target_files)
    tokenizer = load_tokenizer(target_files, config)
    prompts = Prompts(layout, tokenizer)
    numbers = code_numbers(tokenizer.get_vocab(), layout, family.code_number)
    settings = family.read_settings(target_files)

    def guided(files: Checkpoint, settings: Any) -> GuidedModel:
        body = family.load_body(files, settings, layout, device, dtype)
        if config.context is not None:
            body.context = min(body.context, config.context + prompts.longest)
        first = layout.first_code
        return GuidedModel(
            body, prompts, layout.grid, first, layout.codes, body.vocab_size, first_logit=first
        )

    target = guided(target_files, settings)
    provenance = {"target": describe(target_files, target)}
    drafts = []
    for role, files in draft_files.items():
        check_vocabularies(tokenizer, load_tokenizer(files, config), config.target, files.source)
        drafts.append(guided(files, family.read_settings(files)))
        provenance[role] = describe(files, drafts[-1])
    decoder = family.load_pixel_decoder(target_files, settings, layout, device)
    if decoder.about is not None:
        provenance["image_tokenizer"] = dict(decoder.about)
    first = layout.first_code
    embeddings = target.body.embed(torch.arange(first, first + layout.codes, device=device))
    return ModelPair(
        name=config.name,
        target=target,
        draft=drafts[0] if drafts else None,
        tokenizer=tokenizer,
        provenance=provenance,
        more_drafts=tuple(drafts[1:]),
        about=About(dtype_reason(config.dtype, device, checkpoints.parameters(target_files))),
        image=CodePictures(layout, prompts, decoder, embeddings, numbers, rounded=family.rounded),
    )
