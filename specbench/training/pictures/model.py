"""Train the transformers that draw: the target on pictures, then the draft on the target's law.

Both have transformers' Chameleon architecture (Chameleon Team 2024, section 2.2: a Llama with
norms over each head's queries and keys). In one row of ten the caption is left out, which is what
classifier-free guidance needs (Ho and Salimans 2022, "Classifier-Free Diffusion Guidance",
algorithm 1). Optimizers, their rates and the summing of gradients are those of the text pair.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ChameleonConfig, ChameleonForConditionalGeneration
from transformers import PreTrainedTokenizerFast as Tokenizer

from specbench.models.vqgan import Vqgan
from specbench.training.loop import Log, Loss, Optimizers, begin_as_identity, descend, rate
from specbench.training.pictures import tokenizer as words
from specbench.training.pictures.data import Pictures
from specbench.training.pictures.vq import to_tensor
from specbench.training.saving import save_half

TARGET_LAYERS, DRAFT_LAYERS = 6, 1
BATCH = 16
CAPTION_DROPOUT, UNKNOWN_SHARE = 0.1, 0.01
_WIDTH, _HEADS, _FEED_FORWARD, _CONTEXT = 128, 4, 384, 256
_STRUCTURE_WEIGHT = 0.05
_LOG_EVERY = 50
# transformers builds its own tokenizer beside the language model, with groups of 32 channels
# that ours does not have; this is the smallest one, without weights of its own in the checkpoint.
_NO_VQ = {
    "base_channels": 32,
    "channel_multiplier": [1],
    "num_res_blocks": 0,
    "latent_channels": 1,
    "embed_dim": 1,
    "num_embeddings": 1,
    "resolution": 1,
    "attn_type": "none",
}


class Batch(NamedTuple):
    """Sequences padded on the right, without what is forced behind the last code.

    Attributes:
        tokens: Token ids, [B, T].
        learned: Flat indices into [B, T - 1] of the tokens that are to be predicted.
        weights: The loss weight of each of these.
    """

    tokens: Tensor
    learned: Tensor
    weights: Tensor


def build_model(layers: int, tokenizer: Tokenizer) -> ChameleonForConditionalGeneration:
    """Build a 128-wide Chameleon with four heads whose layers begin as the identity."""
    config = ChameleonConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=_FEED_FORWARD,
        num_hidden_layers=layers,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=_CONTEXT,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=words.BEGIN,
        eos_token_id=words.END,
        pad_token_id=words.PAD,
        vq_config=_NO_VQ,
        vocabulary_map={"<image>": words.IMAGE_BEGIN},
    )
    model = ChameleonForConditionalGeneration(config)
    model.model.vqmodel = nn.Identity()
    # At these lengths plain matrix products train faster on a CPU than the fused attention.
    model.config._attn_implementation = "eager"
    begin_as_identity(model, "ChameleonRMSNorm")
    return model


def batches(
    tokenizer: Tokenizer, vq: Vqgan, pictures: Iterator[Pictures], seed: str
) -> Iterator[Batch]:
    """Yield batches of sequences, one for every batch of pictures.

    Args:
        tokenizer: Of words.
        vq: The trained tokenizer of pictures.
        pictures: An endless stream.
        seed: Names which captions are left out, and which words are taken for unknown.
    """
    source = random.Random(seed)
    unknown = tokenizer.unk_token_id
    while True:
        drawn = next(pictures)
        grids = words.grid_tokens(vq.encode(to_tensor(drawn)))[:, :-3].tolist()
        rows = words.prompts(tokenizer, [scene.caption for scene in drawn.scenes])
        for index, row in enumerate(rows):
            if source.random() < CAPTION_DROPOUT:
                rows[index] = list(words.UNCONDITIONAL)
            elif source.random() < UNKNOWN_SHARE * (len(row) - 5):
                row[source.randrange(1, len(row) - 4)] = unknown
        yield _pad(rows, grids)


def _pad(rows: list[list[int]], grids: list[list[int]]) -> Batch:
    length = max(map(len, rows)) + len(grids[0])
    filled = [row + grid for row, grid in zip(rows, grids, strict=True)]
    tokens = torch.tensor([row + [words.PAD] * (length - len(row)) for row in filled])
    learned = [
        index * (length - 1) + place
        for index, row in enumerate(rows)
        for place in range(len(row) - 1, len(row) - 1 + len(grids[0]))
    ]
    following = torch.tensor(grids).flatten()
    weights = torch.where(following == words.ROW_END, _STRUCTURE_WEIGHT, 1.0)
    return Batch(tokens, torch.tensor(learned), weights)


def _loss(
    model: ChameleonForConditionalGeneration,
    batch: Batch,
    teacher: ChameleonForConditionalGeneration | None,
) -> Tensor:
    """Return the weighted mean loss: cross-entropy, or divergence from a teacher's law."""
    following = batch.tokens[:, 1:].flatten()[batch.learned]
    with torch.autocast("cpu", torch.bfloat16):
        logits = _learned_logits(model, batch)
    if teacher is None:
        losses = F.cross_entropy(logits.float(), following, reduction="none")
    else:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            law = _learned_logits(teacher, batch).float().softmax(-1)
        losses = F.cross_entropy(logits.float(), law, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def _learned_logits(model: ChameleonForConditionalGeneration, batch: Batch) -> Tensor:
    hidden = model.model(input_ids=batch.tokens[:, :-1], use_cache=False).last_hidden_state
    logits: Tensor = model.lm_head(hidden.flatten(0, 1)[batch.learned])
    return logits


def fit(
    model: ChameleonForConditionalGeneration,
    teacher: ChameleonForConditionalGeneration | None,
    stream: Iterator[Batch],
    steps: int,
    save_every: int,
    save: Callable[[], None],
) -> None:
    """Train a model for a fixed number of steps; the first process prints and saves.

    Runs in every process of an initialised process group.

    Args:
        model: The model to train, in place.
        teacher: The model whose law is learned, or None to learn the pictures themselves.
        stream: This process's own batches; they all weigh the same.
        steps: Optimizer steps.
        save_every: Steps between two calls of `save`.
        save: Writes the model; also called behind the last step.
    """
    optimizers = Optimizers.of(model, dist.get_rank(), dist.get_world_size())

    def loss(step: int) -> Loss:
        found = _loss(model, next(stream), teacher)
        return Loss(found / dist.get_world_size(), found.item())

    descend(
        list(model.parameters()),
        steps,
        loss,
        lambda step: optimizers.take(rate(step, steps)),
        Log("pictures", _LOG_EVERY, memory=0.98),
        save=lambda step: save(),
        save_every=save_every,
    )


def save_model(
    model: ChameleonForConditionalGeneration, tokenizer: Tokenizer, folder: Path
) -> None:
    """Write a checkpoint folder with weights rounded to float16, as they are shipped."""
    folder.mkdir(parents=True, exist_ok=True)
    save_half(model, folder / "model.safetensors")
    model.config.architectures = [type(model).__name__]
    model.config.dtype = torch.float16
    model.config.save_pretrained(folder)
    words.save_tokenizer(tokenizer, folder)


def load_model(folder: Path) -> ChameleonForConditionalGeneration:
    """Load a checkpoint folder for computing in float32."""
    config = ChameleonConfig.from_pretrained(folder, trust_remote_code=False)
    model = ChameleonForConditionalGeneration(config)
    model.model.vqmodel = nn.Identity()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.float().eval().requires_grad_(False)
