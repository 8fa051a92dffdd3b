"""LlamaGen: a plain Llama that draws an ImageNet class or a caption.

Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation";
shapes, names and defaults as read in FoundationVision/LlamaGen (autoregressive/models,
autoregressive/sample, tokenizer/tokenizer_image, language/t5.py, GETTING_STARTED.md). There is no
transformers class: the published `.pt` files are read as they are.

Shapes: K codes, H heads, N condition slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from specbench.errors import ModelError
from specbench.models import published
from specbench.models.caption_features import load_caption_features
from specbench.models.checkpoint import check_memory
from specbench.models.guided import GuidedModel
from specbench.models.image import Grid
from specbench.models.image_side import Captions, CodePictures, Layout, PixelDecoder, read_grid
from specbench.models.llamagen_body import cache_values, read_body
from specbench.models.llamagen_rows import CaptionEmbedding, CaptionRows, ClassRows
from specbench.models.llamagen_vq import load_vq
from specbench.models.load import dtype_reason, pick_device
from specbench.models.pair import About, ModelPair
from specbench.models.published import State, WeightFile
from specbench.models.room import Room
from specbench.schema.model import ModelConfig
from specbench.schema.reading import Reader

DEFAULT_TEXT_ENCODER = "google/flan-t5-xl"

_KEYS = ("weights", "image_tokenizer", "heads", "grid")


@dataclass(frozen=True)
class Options:
    """The parameters of a loader.

    Attributes:
        weights: Name of the model's file.
        image_tokenizer: Name of the image tokenizer's file, beside it.
        heads: H, which the file does not tell.
        grid: The generated tokens.
        draft_weights: Name of a draft's file, or None.
        draft_heads: H of the draft.
        text_encoder: Hub id or folder of the T5 encoder, or None.
        text_encoder_revision: Its hub revision, or None.
    """

    weights: str
    image_tokenizer: str
    heads: int
    grid: Grid
    draft_weights: str | None = None
    draft_heads: int = 0
    text_encoder: str | None = None
    text_encoder_revision: str | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any], more: tuple[str, ...]) -> Options:
        """Read a loader's parameters.

        Args:
            options: The keys of the entry's loader.
            more: Keys beside those that every LlamaGen has.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        reader = Reader(options, "model.loader", (*_KEYS, *more))
        draft = reader.text("draft_weights", null=True)
        return cls(
            weights=reader.text("weights"),
            image_tokenizer=reader.text("image_tokenizer"),
            heads=reader.integer("heads", minimum=1),
            grid=read_grid(reader.mapping("grid"), reader.path("grid")),
            draft_weights=draft,
            draft_heads=reader.integer("draft_heads", minimum=1) if draft else 0,
            text_encoder=reader.text("text_encoder", null=True),
            text_encoder_revision=reader.text("text_encoder_revision", null=True),
        )


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
    chosen = Options.read(options, ("draft_weights", "draft_heads"))
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
    for file, count in zip(files, (chosen.heads, chosen.draft_heads), strict=False):
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
    chosen = Options.read(options, ("text_encoder", "text_encoder_revision"))
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
