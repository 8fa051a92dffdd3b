"""LlamaGen: a plain Llama that draws an ImageNet class or a caption.

Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation";
shapes, names and defaults as read in FoundationVision/LlamaGen (autoregressive/models,
autoregressive/sample, tokenizer/tokenizer_image, language/t5.py, GETTING_STARTED.md). There is no
transformers class: the published `.pt` files are read as they are.

Shapes: K codes, H heads, N condition slots.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from specbench.errors import ModelError
from specbench.models import published
from specbench.models.caption_features import load_caption_features
from specbench.models.checkpoint import check_memory
from specbench.models.guided import GuidedModel
from specbench.models.image import Grid
from specbench.models.image_side import Captions, CodePictures, Layout, PixelDecoder
from specbench.models.llamagen_body import cache_values, read_body
from specbench.models.llamagen_rows import CaptionEmbedding, CaptionRows, ClassRows
from specbench.models.llamagen_vq import load_vq
from specbench.models.load import dtype_reason, pick_device
from specbench.models.pair import About, ModelPair
from specbench.models.published import WeightFile
from specbench.models.room import Room
from specbench.models.state import State
from specbench.schema.group import Group, Text, Whole, refused
from specbench.schema.model import ModelConfig

DEFAULT_TEXT_ENCODER = "google/flan-t5-xl"


@dataclass(frozen=True)
class Options(Group):
    """The parameters that every loader of a LlamaGen has.

    Attributes:
        weights: Name of the model's file.
        image_tokenizer: Name of the image tokenizer's file, beside it.
        heads: H, which the file does not tell.
        grid: The generated tokens.
    """

    key_path = "model.loader"

    weights: Text
    image_tokenizer: Text
    heads: Annotated[Whole, Field(ge=1)]
    grid: Grid


@dataclass(frozen=True)
class ClassOptions(Options):
    """The parameters of a class-conditional loader.

    Attributes:
        draft_weights: Name of a draft's file, or None.
        draft_heads: H of the draft.
    """

    draft_weights: Text | None = None
    draft_heads: Annotated[Whole, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.draft_weights and self.draft_heads is None:
            raise refused("draft_heads", None, "a whole number of at least 1")
        return self


@dataclass(frozen=True)
class CaptionOptions(Options):
    """The parameters of a text-conditional loader.

    Attributes:
        text_encoder: Hub id or folder of the T5 encoder, or None.
        text_encoder_revision: Its hub revision, or None.
    """

    text_encoder: Text | None = None
    text_encoder_revision: Text | None = None


def load_class_conditional(
    config: ModelConfig, *, needs: frozenset[str] = frozenset(), **options: Any
) -> ModelPair:
    """Load a class-conditional LlamaGen.

    Port ids: code c is c, class k is K + k, and the null class comes last.

    Args:
        config: The model entry; `target` and `draft` are hub ids or folders of published files.
        needs: What the methods need of the models; the draft is left out where none needs it.
        options: The further keys of the entry's loader; see `Options`.

    Raises:
        ConfigError: If an option is not valid.
        ModelError: If a file is missing, is another model's, or does not fit.
    """
    chosen = ClassOptions.from_dict(options)
    published.check_engine(config)
    device = pick_device(config.device)
    files = published.find_files(config.target, [chosen.weights], config.target_revision)
    if "draft" in needs and config.draft is not None and chosen.draft_weights is not None:
        names = [chosen.draft_weights]
        files += published.find_files(config.draft, names, config.draft_revision)
    need = published.check_room(config, files, device)
    grid = chosen.grid
    models = []
    values = 0
    for file, count in zip(files, (chosen.heads, chosen.draft_heads or 0), strict=False):
        state = State.read(file.fetch())
        table = state["cls_embedding.embedding_table.weight"]
        dtype = published.pick_dtype(config.dtype, device, state.parameters)
        values += cache_values(state)
        _check_cache(config, need, values, 1 + grid.length, device, dtype)
        body = read_body(
            state,
            table,
            heads=count,
            grid=grid,
            slots=1,
            name=f"{file.source}/{file.name}",
            device=device,
            dtype=dtype,
        )
        codes = state["tok_embeddings.weight"].shape[0]
        rows = ClassRows(codes, table.shape[0] - 1)
        models.append(GuidedModel(body, rows, grid, 0, codes, codes + table.shape[0]))
    if len(models) == 2 and models[0].vocab_size != models[1].vocab_size:
        raise ModelError(
            f"'{files[1].name}' cannot draft for '{files[0].name}'",
            f"it knows {models[1].vocab_size} codes and classes, the target {models[0].vocab_size}",
            "Choose a draft of the same family.",
        )
    images = _images(config, chosen, models[0], codes, rows, device)
    return _pair(config, models, files, *images)


def load_text_conditional(
    config: ModelConfig, *, needs: frozenset[str] = frozenset(), **options: Any
) -> ModelPair:
    """Load a caption-conditional LlamaGen.

    Port ids: code c is c, and token t of the text encoder is K + t. A prompt is the caption's
    tokens, padded on the left to N as the features are.

    Args:
        config: The model entry; `target` is a hub id or a folder of published files.
        needs: What the methods need of the models; there is no draft.
        options: The further keys of the entry's loader; see `Options`.

    Raises:
        ConfigError: If an option is not valid.
        ModelError: If a file is missing, is another model's, or does not fit.
    """
    chosen = CaptionOptions.from_dict(options)
    encoder = chosen.text_encoder or DEFAULT_TEXT_ENCODER
    published.check_engine(config)
    device = pick_device(config.device)
    files = published.find_files(config.target, [chosen.weights], config.target_revision)
    need = published.check_room(config, files, device)
    grid = chosen.grid
    state = State.read(files[0].fetch())
    dtype = published.pick_dtype(config.dtype, device, state.parameters)
    slots = state["cls_embedding.uncond_embedding"].shape[0]
    _check_cache(config, need, cache_values(state), slots + grid.length, device, dtype)
    embed = CaptionEmbedding(state, device, dtype)
    features = load_caption_features(encoder, chosen.text_encoder_revision, device, dtype)
    if features.width != embed.width:
        raise ModelError(
            f"'{encoder}' does not fit '{chosen.weights}'",
            f"its features are {features.width} wide, and the model reads {embed.width}",
            f"Use the text encoder that the model was trained with ({DEFAULT_TEXT_ENCODER}).",
        )
    bare = embed(state["cls_embedding.uncond_embedding"].to(device, dtype))
    body = read_body(
        state,
        torch.cat([torch.zeros_like(bare), bare]),
        heads=chosen.heads,
        grid=grid,
        slots=slots,
        name=f"{files[0].source}/{files[0].name}",
        device=device,
        dtype=dtype,
    )
    codes = state["tok_embeddings.weight"].shape[0]
    rows = CaptionRows(features, embed, body.embedding, codes, slots)
    target = GuidedModel(body, rows, grid, 0, codes, codes + features.vocab_size)
    images, tokenizer = _images(config, chosen, target, codes, rows, device)
    provenance = {**tokenizer, "text_encoder": features.describe()}
    return _pair(config, [target], files, images, provenance)


def _check_cache(
    config: ModelConfig,
    need: float | None,
    values: int,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Refuse models whose cache does not fit beside their weights; the files tell its width."""
    room = Room.of(config, tokens)
    gigabytes = room.bytes(values, dtype) / 1e9
    check_memory(need, device, config.name, gigabytes, room.describe())


def _images(
    config: ModelConfig,
    chosen: Options,
    target: GuidedModel,
    codes: int,
    captions: Captions,
    device: torch.device,
) -> tuple[CodePictures, dict[str, Any]]:
    """Return the pictures' side and the provenance of what it draws with, if it can draw."""
    names = [chosen.weights, chosen.image_tokenizer]
    provenance: dict[str, Any] = {}
    try:
        file = published.find_files(config.target, names, config.target_revision)[1]
        tokenizer, stored = load_vq(file.fetch(), device)
        decoder = PixelDecoder(tokenizer.codebook.detach(), tokenizer.decode, rows=stored)
        provenance["image_tokenizer"] = file.describe()
    except ModelError as missing:
        decoder = PixelDecoder(None, None, missing)
    layout = Layout(chosen.grid, first_code=0, codes=codes, prompt=(), unconditional=())
    embeddings = target.body.embed(torch.arange(codes, device=device))
    return CodePictures(layout, captions, decoder, embeddings), provenance


def _pair(
    config: ModelConfig,
    models: list[GuidedModel],
    files: list[WeightFile],
    images: CodePictures,
    provenance: dict[str, Any],
) -> ModelPair:
    for role, file, model in zip(("target", "draft"), files, models, strict=False):
        provenance[role] = {
            **file.describe(),
            "file": file.name,
            "engine": model.engine,
            "dtype": str(model.dtype).removeprefix("torch."),
            "vocab_size": model.vocab_size,
        }
        if config.context is not None:
            model.context = min(model.context, config.context)
    sizes = models[0].sizes
    count = None if sizes is None else sizes.parameters
    return ModelPair(
        name=config.name,
        target=models[0],
        draft=models[1] if len(models) > 1 else None,
        provenance=provenance,
        image=images,
        about=About(dtype_reason(config.dtype, models[0].device, count)),
    )
