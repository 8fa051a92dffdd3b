"""Train the caption model of the world.

An open_clip model in open_clip's own folder format (configuration, weights, tokenizer), so that
the same code measures CLIP scores of the world and of photographs. The loss is CLIP's (Radford et
al., 2021, figure 3), with captions that mean the same kept out of each other's negatives; reading
the scene's attributes off the image embedding beside it lets a small model learn in minutes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import open_clip  # type: ignore[import-untyped]
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from specbench.training.loop import Log, Loss, descend
from specbench.training.saving import save_half, write_checksums
from specbench.zoo.pictures.attributes import (
    AttributeHeads,
    Attributes,
    as_input,
    attributes,
    draw,
    meanings,
)
from specbench.zoo.pictures.scene import SIZE, vocabulary

FOLDER = "tiny_clip"
STEPS = 1200

_WIDTH, _EMBEDDING, _CONTEXT = 64, 64, 16
_PAD, _UNKNOWN, _BEGIN, _END = "<|pad|>", "<|unknown|>", "<|begin|>", "<|end|>"
_MEAN = _STD = (0.5, 0.5, 0.5)
_POOL, _BATCH = 8192, 128
_POOL_PASSES = 2
_RATE, _WEIGHT_DECAY = 2e-3, 0.05
_LARGEST_SCALE = 100.0
_CHECKED, _CHOICES = 1024, 16
_LOG_EVERY = 100


class Batch(NamedTuple):
    """Pictures with their captions.

    Attributes:
        pixels: float32 [N, 3, SIZE, SIZE], 0 to 1.
        tokens: int64 [N, context].
        meaning: int64 [N], equal where two captions mean the same.
        truth: What the pictures show.
    """

    pixels: Tensor
    tokens: Tensor
    meaning: Tensor
    truth: Attributes


class Alignment(NamedTuple):
    """How well captions and pictures find each other.

    Attributes:
        matched: Mean cosine of a picture and its own caption.
        shuffled: Mean cosine of a picture and a caption that means something else.
        retrieval: Share of pictures whose own caption is the nearest of 16.
    """

    matched: float
    shuffled: float
    retrieval: float


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the word-level tokenizer; the end token has the largest id, where CLIP reads a text."""
    words = (_PAD, _UNKNOWN, _BEGIN, *vocabulary(), _END)
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_END}", special_tokens=[(_BEGIN, ids[_BEGIN]), (_END, ids[_END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        bos_token=_BEGIN,
        eos_token=_END,
        model_max_length=_CONTEXT,
    )


def write_config(folder: Path) -> None:
    """Write `open_clip_config.json` and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    config = {
        "model_cfg": {
            "embed_dim": _EMBEDDING,
            "vision_cfg": {
                "image_size": SIZE,
                "patch_size": 8,
                "width": _WIDTH,
                "head_width": 16,
                "layers": 4,
            },
            "text_cfg": {
                "hf_tokenizer_name": FOLDER,
                "context_length": _CONTEXT,
                "vocab_size": len(tokenizer),
                "width": _WIDTH,
                "heads": 4,
                "layers": 3,
            },
        },
        "preprocess_cfg": {"mean": _MEAN, "std": _STD, "interpolation": "bicubic"},
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")


def _stream(name: str, tokenize: Callable[[list[str]], Tensor]) -> Iterator[Batch]:
    shuffle = torch.Generator().manual_seed(0)
    for index in itertools.count():
        drawn = draw(f"{name}/{index}", _POOL)
        pixels, truth = as_input(drawn.pictures), attributes(drawn)
        tokens = tokenize([scene.caption for scene in drawn.scenes])
        texts = meanings(drawn.scenes)
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        meaning = torch.tensor([numbers[text] for text in texts])
        for _ in range(_POOL_PASSES):
            for chosen in torch.randperm(_POOL, generator=shuffle).split(_BATCH):
                yield Batch(pixels[chosen], tokens[chosen], meaning[chosen], truth.rows(chosen))


def _softened(pixels: Tensor) -> Tensor:
    """Blur pictures by random amounts, half of them not at all: decoded pictures are softer."""
    amount = (torch.rand(len(pixels), 1, 1, 1) * 2 - 1).clamp(min=0)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return pixels + amount * (blurred - pixels)


def normalised(pixels: Tensor) -> Tensor:
    """Return pictures [N, 3, H, W] in 0 to 1 as the model takes them."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (pixels - mean) / std


def _loss(images: Tensor, texts: Tensor, scale: Tensor, meaning: Tensor) -> Tensor:
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    same = meaning[:, None] == meaning[None]
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, float("-inf"))
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def evaluate(model: Any, tokenize: Callable[[list[str]], Tensor]) -> Alignment:
    """Compare fresh pictures with their own captions and with those of others."""
    drawn = draw("clip/check", _CHECKED)
    texts = meanings(drawn.scenes)
    with torch.inference_mode():
        images = model.encode_image(normalised(as_input(drawn.pictures)), normalize=True)
        captions = model.encode_text(tokenize([s.caption for s in drawn.scenes]), normalize=True)
    cosines = images @ captions.T
    differs = torch.tensor([[a != b for b in texts] for a in texts])
    hits = 0
    for row in range(_CHECKED):
        order = torch.roll(torch.arange(_CHECKED), -row)
        others = order[differs[row][order]][: _CHOICES - 1]
        hits += int(bool((cosines[row, row] > cosines[row, others]).all()))
    return Alignment(
        cosines.diagonal().mean().item(), cosines[differs].mean().item(), hits / _CHECKED
    )


def build(folder: Path, seed: int = 0, steps: int = STEPS) -> nn.Module:
    """Train the model and write its folder, which open_clip loads as `local-dir:FOLDER`."""
    torch.manual_seed(seed)
    write_config(folder)
    place = f"local-dir:{folder}"
    model: Any = open_clip.create_model(place, load_weights=False)
    tokenize = open_clip.get_tokenizer(place)
    heads = AttributeHeads(_EMBEDDING)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=_RATE, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps, pct_start=0.1)
    stream = _stream(f"clip/{seed}", tokenize)

    def loss(step: int) -> Loss:
        batch = next(stream)
        images = model.encode_image(normalised(_softened(batch.pixels)))
        texts = model.encode_text(batch.tokens)
        contrast = _loss(images, texts, model.logit_scale.exp(), batch.meaning)
        found = contrast + heads.loss(images, batch.truth)
        return Loss(found, found.item(), lambda: f"contrast {contrast.item():.4f}")

    def take(step: int) -> None:
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=torch.tensor(_LARGEST_SCALE).log().item())

    descend(parameters, steps, loss, take, Log("clip", _LOG_EVERY))
    save_half(model, folder / "open_clip_model.safetensors")
    write_checksums(folder)
    shipped: Any = open_clip.create_model(place).eval()
    print(f"{evaluate(shipped, tokenize)}", flush=True)
    return model
