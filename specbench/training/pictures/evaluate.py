"""Score the pictures of a trained pair: `python -m specbench.training.pictures.evaluate FOLDER`.

Sampling here is plain and batched, through transformers alone: the numbers of `docs/pictures.md` do
not depend on the decoders that this project measures.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, ChameleonForConditionalGeneration, DynamicCache
from transformers import PreTrainedTokenizerFast as Tokenizer

from specbench.models.vqgan import Vqgan
from specbench.models.vqgan_files import load_vqgan
from specbench.paths import weights_dir
from specbench.report.contact_sheet import Entry, contact_sheet
from specbench.training.pictures import tokenizer as words
from specbench.training.pictures.data import Pictures
from specbench.training.pictures.model import load_model
from specbench.training.pictures.vq import to_tensor
from specbench.zoo.pictures.detector import judge
from specbench.zoo.pictures.render import render_batch
from specbench.zoo.pictures.scene import HELD_OUT_TASKS, TASKS, Scene, draw_scene

TARGET_FOLDER, DRAFT_FOLDER, VQ_FOLDER = "tiny_image_target", "tiny_image_draft", "vq"
_LIGHT_SEED = 1 << 50
_SHEET_CAPTIONS, _SHEET_TONES = 24, 200


class Sampling(NamedTuple):
    """A law to sample codes from.

    Attributes:
        temperature: Divides the guided logits.
        top_k: Codes that may be drawn; the more probable ones.
        cfg_scale: Weight of the caption: u + scale (c - u); 1 means no guidance.
    """

    temperature: float = 1.0
    top_k: int = 128
    cfg_scale: float = 2.0


DEFAULT = Sampling()


class Drawn(NamedTuple):
    """What a model drew for prompts.

    Attributes:
        tokens: Tokens behind each prompt, [B, GRID_TOKENS].
        entropy: Mean entropy of the sampling law at the codes, in nats.
        acceptance: Mean of 1 - TV between the sampling laws of model and draft at the codes, which
            is what speculative sampling accepts; None without a draft.
    """

    tokens: Tensor
    entropy: float
    acceptance: float | None


class _Rows:
    """A model under a law, fed with the captioned row and the other one of every prompt."""

    def __init__(
        self,
        model: ChameleonForConditionalGeneration,
        prompts: Sequence[list[int]],
        sampling: Sampling,
    ) -> None:
        self._model, self._sampling = model, sampling
        width = max(map(len, prompts))
        rows = [*prompts, *([list(words.UNCONDITIONAL)] * len(prompts))]
        self.tokens = torch.tensor([[words.PAD] * (width - len(row)) + row for row in rows])
        self._mask = (self.tokens != words.PAD).long()
        self._cache = DynamicCache()

    def law(self, tokens: Tensor) -> Tensor:
        """Return the law of the next code, [B, CODES], behind new tokens, [2 B, T]."""
        grown = tokens.shape[1] + self._cache.get_seq_length() - self._mask.shape[1]
        self._mask = torch.nn.functional.pad(self._mask, (0, grown), value=1)
        hidden = self._model.model(
            input_ids=tokens, attention_mask=self._mask, past_key_values=self._cache, use_cache=True
        ).last_hidden_state[:, -1]
        codes = slice(words.FIRST_CODE, words.FIRST_CODE + words.CODES)
        conditional, free = self._model.lm_head(hidden)[:, codes].chunk(2)
        logits = free + self._sampling.cfg_scale * (conditional - free)
        least = logits.topk(self._sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
        return (logits / self._sampling.temperature).softmax(-1)


@torch.inference_mode()
def draw(
    model: ChameleonForConditionalGeneration,
    tokenizer: Tokenizer,
    captions: Sequence[str],
    sampling: Sampling = DEFAULT,
    seed: int = 0,
    draft: ChameleonForConditionalGeneration | None = None,
) -> Drawn:
    """Sample one picture per caption."""
    source = torch.Generator().manual_seed(seed)
    prompts = words.prompts(tokenizer, list(captions))
    models = [model] if draft is None else [model, draft]
    rows = [_Rows(each, prompts, sampling) for each in models]
    fed, count = rows[0].tokens, len(prompts)
    written: list[Tensor] = []
    entropies, overlaps = [], []
    for place in range(words.SIDE * (words.SIDE + 1)):
        laws = [each.law(fed) for each in rows]
        if place % (words.SIDE + 1) == words.SIDE:
            column = torch.full((count, 1), words.ROW_END)
        else:
            law = laws[0]
            entropies.append(torch.special.entr(law).sum(-1).mean().item())
            if draft is not None:
                overlaps.append(torch.minimum(law, laws[1]).sum(-1).mean().item())
            column = words.FIRST_CODE + torch.multinomial(law, 1, generator=source)
        written.append(column)
        fed = column.repeat(2, 1)
    ending = torch.tensor([words.IMAGE_END, words.END]).expand(count, 2)
    return Drawn(
        torch.cat([*written, ending], 1),
        sum(entropies) / len(entropies),
        sum(overlaps) / len(overlaps) if overlaps else None,
    )


def to_pixels(vq: Vqgan, codes: Tensor) -> NDArray[np.uint8]:
    """Return RGB pictures, (B, SIZE, SIZE, 3), for codes [B, SIDE, SIDE]."""
    pixels = (vq.decode(codes) + 1.0) * 127.5
    picture: NDArray[np.uint8] = pixels.round().byte().permute(0, 2, 3, 1).numpy()
    return picture


def validation_scenes(count: int) -> list[Scene]:
    """Draw scenes of all tasks in turn, of held-out combinations where a task has them."""
    return [
        draw_scene(random.Random(f"validation/{index}"), task, held_out=task in HELD_OUT_TASKS)
        for index, task in zip(range(count), TASKS * (count // len(TASKS) + 1), strict=False)
    ]


def rule_scores(scenes: Sequence[Scene], pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Return the share of right pictures of every task, and the mean of the tasks as `all`."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for scene, picture in zip(scenes, pixels, strict=True):
        marks[scene.task].append(judge(scene.wanted, picture).right)
    scores = {task: sum(right) / len(right) for task, right in marks.items()}
    return {**scores, "all": sum(scores.values()) / len(scores)}


def ceiling(vq: Vqgan, scenes: list[Scene]) -> dict[str, float]:
    """Return the scores of the scenes themselves behind the tokenizer: no model draws better."""
    seeds = range(_LIGHT_SEED, _LIGHT_SEED + len(scenes))
    pictures = Pictures(scenes, render_batch(scenes, seeds))
    return rule_scores(scenes, to_pixels(vq, vq.encode(to_tensor(pictures))))


def sheet(
    target: ChameleonForConditionalGeneration, tokenizer: Tokenizer, vq: Vqgan, path: Path
) -> None:
    """Write a picture of what the target draws: two seeds under each of 24 unseen captions."""
    captions = [scene.caption for scene in validation_scenes(_SHEET_CAPTIONS)]
    drawn = [draw(target, tokenizer, captions, seed=seed).tokens for seed in (0, 1)]
    pixels = [to_pixels(vq, words.grid_codes(tokens)) for tokens in drawn]
    entries = [Entry(*entry) for entry in zip(captions, zip(*pixels, strict=True), strict=True)]
    picture = Image.fromarray(contact_sheet(entries, ["seed 0", "seed 1"]))
    # Fewer tones halve the file and cannot be told from the original at this size.
    picture.quantize(_SHEET_TONES, dither=Image.Dither.NONE).save(path, optimize=True)


def _line(name: str, scores: dict[str, float], drawn: Drawn | None = None) -> str:
    parts = [f"{name:<24}", *(f"{scores[task]:.3f}" for task in (*TASKS, "all"))]
    if drawn is not None:
        parts.append(f"entropy {drawn.entropy:.2f}")
        if drawn.acceptance is not None:
            parts.append(f"draft {drawn.acceptance:.3f}")
    return "  ".join(parts)


def main() -> None:
    """Print the tokenizer's ceiling and the target's score under several laws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=weights_dir())
    parser.add_argument("--pictures", type=int, default=384)
    parser.add_argument("--law", type=float, nargs=3, action="append", metavar=("T", "K", "CFG"))
    parser.add_argument("--sheet", type=Path, help="write a picture of samples, and no scores")
    options = parser.parse_args()
    folder: Path = options.folder
    tokenizer = AutoTokenizer.from_pretrained(folder / TARGET_FOLDER, trust_remote_code=False)
    vq = load_vqgan(folder / TARGET_FOLDER / VQ_FOLDER)
    target = load_model(folder / TARGET_FOLDER)
    if options.sheet is not None:
        sheet(target, tokenizer, vq, options.sheet)
        return
    draft_folder = folder / DRAFT_FOLDER
    draft = load_model(draft_folder) if draft_folder.is_dir() else None
    scenes = validation_scenes(options.pictures)
    captions = [scene.caption for scene in scenes]
    print("  ".join([" " * 24, *(f"{task[:5]:>5}" for task in TASKS), "  all"]))
    print(_line("tokenizer (ceiling)", ceiling(vq, scenes)))
    laws = [Sampling(t, int(k), cfg) for t, k, cfg in options.law or []] or [DEFAULT]
    for sampling in laws:
        drawn = draw(target, tokenizer, captions, sampling, draft=draft)
        pixels = to_pixels(vq, words.grid_codes(drawn.tokens))
        name = f"T {sampling.temperature:g} k {sampling.top_k} cfg {sampling.cfg_scale:g}"
        print(_line(name, rule_scores(scenes, pixels), drawn), flush=True)


if __name__ == "__main__":
    main()
