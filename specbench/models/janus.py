"""Janus-Pro: a Llama that reads words and draws in codes of a vocabulary of their own.

Chen et al. 2025, "Janus-Pro: Unified Multimodal Understanding and Generation with Data and Model
Scaling"; weights in transformers' form. Words and codes have separate embeddings and heads, so
code c is port id V + c behind the V words: the codes' embeddings, which the release computes anew
for every token (a vector of eight numbers through a small network), are computed once at load time
and stand behind the words' table.

As read in deepseek-ai/Janus (generation_inference.py, janus/utils/conversation.py) and transformers
(models/janus/modeling_janus.py, `generate`): the unconditional row is the prompt with every token
but the first and the last replaced by padding, and it sees that padding.

Shapes: V words, K codes, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor
from transformers import JanusConfig, JanusForConditionalGeneration

from specbench.errors import ModelError
from specbench.law import OWN
from specbench.models import checkpoint as checkpoints
from specbench.models.checkpoint import Checkpoint
from specbench.models.decoder import LeanDecoder
from specbench.models.guided import GuidedModel
from specbench.models.image import Grid, Rows, check_rows
from specbench.models.image_side import (
    CAPTION,
    CodePictures,
    Layout,
    PixelDecoder,
)
from specbench.models.lean_weights import body_weights, projection
from specbench.models.load import (
    describe,
    dtype_reason,
    find_all,
    load_tokenizer,
    pick_dtype,
)
from specbench.models.pair import About, ModelPair
from specbench.models.pixels import PIXEL_DTYPES, PixelDtype
from specbench.models.pretrained import read_module, read_settings
from specbench.models.published import check_engine
from specbench.schema.group import Group, Text, refused
from specbench.schema.model import ModelConfig

_EYES = ("model.vision_model.", "model.aligner.", "lm_head.")
"""Weights that read pictures or write words, which nothing here computes."""


@dataclass(frozen=True)
class Options(Group):
    """The parameters of a loader.

    Attributes:
        grid: The generated tokens.
        template: The prompt, with `CAPTION` in it.
        begin: Name of the token that begins a picture and ends the prompt.
        pixel_dtype: In what pixels are computed.
    """

    key_path = "model.loader"

    grid: Grid
    template: Text
    begin: Text
    pixel_dtype: PixelDtype = "float32"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if CAPTION not in self.template:
            raise refused("template", self.template, f"a text that holds {CAPTION}")
        return self


def load(config: ModelConfig, *, needs: frozenset[str] = frozenset(), **options: Any) -> ModelPair:
    """Load a Janus-Pro.

    Args:
        config: The model entry; a smaller Janus-Pro can draft for a larger one.
        needs: What the methods need of the models; the draft is left out where none needs it.
        options: The further keys of the entry's loader; see `Options`.

    Raises:
        ConfigError: If an option is not valid.
        ModelError: If a checkpoint is missing, does not fit in memory or cannot be read.
    """
    chosen = Options.from_dict(options)
    grid, drawn = chosen.grid, PIXEL_DTYPES[chosen.pixel_dtype]
    check_engine(config)
    device, files, drafts = find_all(config, needs, grid.length)
    dtype = pick_dtype(config.dtype, device, files)
    tokenizer = load_tokenizer(files, config)
    captions = rows = JanusCaptions(tokenizer, chosen.template, chosen.begin)
    models = []
    decoder = None
    provenance: dict[str, Any] = {}
    for role, each in {"target": files, **drafts}.items():
        module = load_module(each, dtype)
        if decoder is None:
            decoder = JanusPixels(module.model.vqmodel, device, drawn)
            side = module.config.vq_config.num_patches
            if (grid.rows, grid.columns) != (side, side):
                raise ModelError(
                    f"'{each.source}' does not draw {grid.rows} x {grid.columns} codes",
                    f"its configuration says {side} x {side}",
                    "Correct model.loader.grid.",
                )
        else:
            rows = captions.for_draft(load_tokenizer(each, config), each.source)
            if not decoder.reads_the_codes_of(module.model.vqmodel):
                raise _no_draft(each.source, "their image tokenizers have different codebooks")
        models.append(_guided(module, rows, grid, each.source, device, dtype))
        if models[-1].vocab_size != models[0].vocab_size:
            counts = [model.vocab_size for model in (models[-1], models[0])]
            why = "it numbers {} words and codes, the target {}".format(*counts)
            raise _no_draft(each.source, why)
        if config.context is not None:
            models[-1].context = min(models[-1].context, config.context)
        provenance[role] = describe(each, models[-1])
    assert decoder is not None
    codes = decoder.codebook.shape[0]
    first = models[0].vocab_size - codes
    layout = Layout(grid, first, codes, prompt=(), unconditional=())
    pixels = PixelDecoder(decoder.codebook, decoder.decode, rows=decoder.rows)
    embeddings = models[0].body.embed(torch.arange(first, first + codes, device=device))
    return ModelPair(
        name=config.name,
        target=models[0],
        draft=models[1] if len(models) > 1 else None,
        tokenizer=tokenizer,
        provenance=provenance,
        more_drafts=tuple(models[2:]),
        about=About(dtype_reason(config.dtype, device, checkpoints.parameters(files))),
        image=CodePictures(layout, captions, pixels, embeddings, rounded=False),
    )


def load_module(files: Checkpoint, dtype: torch.dtype) -> Any:
    """Load a checkpoint into transformers' module, without its eyes.

    Raises:
        ModelError: If it is no Janus, cannot be read, or lacks weights.
    """
    settings = read_settings(files, JanusConfig)
    kind = JanusForConditionalGeneration
    module = read_module(kind, files, settings, dtype, beside=_EYES).module
    del module.model.vision_model, module.model.aligner  # they only read pictures
    return module


def _guided(
    module: Any,
    captions: JanusCaptions,
    grid: Grid,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
) -> GuidedModel:
    language = module.model.language_model
    words = language.embed_tokens.weight.detach()
    with torch.inference_mode():
        vectors = module.model.generation_embeddings.weight
        codes = module.model.generation_aligner.float()(vectors.float()).to(words.dtype)
    heads = module.model.generation_head
    inner, outer = (
        projection(part.weight, part.bias, device=device, dtype=dtype)
        for part in (heads.proj_out, heads.vision_head)
    )
    weights = body_weights(
        language,
        module.config.text_config,
        head=lambda x: outer(F.gelu(inner(x))),
        device=device,
        dtype=dtype,
        embedding=torch.cat([words, codes]),
        head_first=words.shape[0],
    )
    body = LeanDecoder(weights, name)
    first, count = words.shape[0], codes.shape[0]
    return GuidedModel(body, captions, grid, first, count, first + count, first)


class JanusCaptions:
    """Prompts of captions, and their conditioning rows.

    Args:
        tokenizer: A transformers tokenizer with beginning and padding tokens.
        template: The prompt, with `CAPTION` in it.
        begin: Name of the token that begins a picture.
        renamed: For a draft, its ids of the target's tokens where the two differ.

    Raises:
        ModelError: If the tokenizer lacks one of these tokens.
    """

    longest = 0

    def __init__(
        self, tokenizer: Any, template: str, begin: str, renamed: Mapping[int, int] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._begin_name = begin
        self._renamed = renamed or {}
        self._begin: int | None = tokenizer.get_vocab().get(begin)
        lacking = [
            name
            for name, token in (
                (begin, self._begin),
                ("the beginning of a text", tokenizer.bos_token_id),
                ("padding", tokenizer.pad_token_id),
            )
            if token is None
        ]
        if lacking:
            raise ModelError(
                f"The tokenizer has no token for {', '.join(lacking)}",
                "prompts and unconditional rows of Janus-Pro are made with them",
                "Use the tokenizer that is published with the model.",
            )

    def encode(self, caption: str) -> list[int]:
        """Return the prompt of a caption: its beginning, the template, the picture's beginning."""
        text = self._template.replace(CAPTION, caption.strip())
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        assert self._begin is not None
        return [self._tokenizer.bos_token_id, *ids, self._begin]

    def for_draft(self, tokenizer: Any, source: str) -> JanusCaptions:
        """Return the rows of a draft, which reads this model's prompts.

        The released sizes share their words but number a few tokens of the template differently.

        Args:
            tokenizer: The draft's.
            source: What the draft is called.

        Raises:
            ModelError: If more than such a few differ.
        """
        ours, theirs = self._tokenizer.get_vocab(), tokenizer.get_vocab()
        renamed = {
            index: theirs.get(token, tokenizer.pad_token_id)
            for token, index in ours.items()
            if theirs.get(token) != index
        }
        if len(renamed) > 0.01 * len(ours):
            why = f"{len(renamed)} of {len(ours)} tokens have another id or are missing"
            raise _no_draft(source, why)
        return JanusCaptions(tokenizer, self._template, self._begin_name, renamed)

    def rows(self, prompt: Sequence[int], count: int, unconditional: str = OWN) -> Rows:
        """Return the rows of a prompt: as it is, and with all but its two ends blanked.

        Raises:
            ModelError: If other rows are asked for.
        """
        check_rows(count, unconditional)
        full = [self._renamed.get(token, token) for token in prompt]
        blank = [self._tokenizer.pad_token_id] * (len(prompt) - 2)
        tokens = [full, [full[0], *blank, full[-1]]][:count]
        return Rows(torch.tensor(tokens), (0,) * count)


class JanusPixels:
    """The decoder half of Janus's image tokenizer.

    Args:
        vqmodel: transformers' `JanusVQVAE`.
        device: Where to compute.
        dtype: In what to compute.

    Attributes:
        rows: [K, 8], the codes as they are stored.
        codebook: [K, 8], every code of length one, as the decoder reads them.
    """

    def __init__(
        self, vqmodel: Any, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self._decoder = vqmodel.decoder.to(device, dtype)
        self._to_latents = vqmodel.post_quant_conv.to(device, dtype)
        self.rows = vqmodel.quantize.embedding.weight.detach().to(device, torch.float32)
        self.codebook = F.normalize(self.rows, dim=-1)
        self._latents = F.normalize(self.rows.to(dtype), dim=-1)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Return pixels [1, 3, H, W] in -1 to 1 of codes [1, h, w]."""
        latents = F.embedding(codes, self._latents).permute(0, 3, 1, 2)
        return self._decoder(self._to_latents(latents))

    def reads_the_codes_of(self, vqmodel: Any) -> bool:
        """Say whether the codes of a draft's `JanusVQVAE` mean what these do."""
        book = F.normalize(vqmodel.quantize.embedding.weight.detach().float(), dim=-1)
        ours = self.codebook.cpu()
        return bool(book.shape == ours.shape and torch.allclose(book, ours, atol=1e-2))


def _no_draft(source: str, why: str) -> ModelError:
    fix = "Choose a draft of the same family, trained with the same image tokenizer."
    return ModelError(f"'{source}' cannot draft for this model", why, fix)
