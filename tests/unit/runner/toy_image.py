"""A toy image model pair: six codes on a grid of 2 x 3, drawn as six squares of colour."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from specbench.errors import ModelError
from specbench.metrics.base import CorpusValue
from specbench.models.image import Grid
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, drift_table, markov_table
from specbench.schema.config import ModelConfig, RunConfig, SamplingConfig, TimingConfig
from specbench.schema.metric import MetricConfig
from tests.unit.runner.toy import AR, TOKEN_SD, method

CODES = 6
SIDE = 4
HERE = "tests.unit.runner.toy_image"
drawn = SimpleNamespace(count=0)
"""How many pictures were drawn since a test set it to 0."""


class Squares:
    grid = Grid(rows=2, columns=3)
    first_code = 0
    codes = CODES
    codebook = torch.eye(CODES)

    def __init__(self, can_draw=True):
        self.can_draw = can_draw

    def vectors(self, space):
        return self.codebook

    def encode(self, prompt):
        return [ord(letter) % CODES for letter in prompt if not letter.isspace()]

    def pixels(self, tokens):
        if not self.can_draw:
            raise ModelError("'vq.pt' is not loaded", "its pickle can run code", "Use another.")
        drawn.count += 1
        codes = [*tokens, *[0] * self.grid.length][: self.grid.length]
        shades = np.array(codes, dtype=np.uint8).reshape(2, 3) * 40
        return np.repeat(np.repeat(shades, SIDE, 0), SIDE, 1)[..., None].repeat(3, -1)


def load(config, needs, can_draw=True):
    table = markov_table(2, CODES, 0, 2.0)
    noise = markov_table(1, CODES, 9, 2.0)
    draft = TableModel(drift_table(table, noise, 0.3), CODES) if "draft" in needs else None
    target = TableModel(table, CODES)
    provenance = {"target": {"source": "toy"}}
    return ModelPair(config.name, target, draft, provenance=provenance, image=Squares(can_draw))


class Brightness:
    """A picture metric: the mean of the pixels, from 0 to 1."""

    name, version, unit, better = "brightness", 1, "", "higher"
    prepared = 0
    scored = 0

    def __init__(self, scale=1.0, reference="none"):
        self.protocol = f"mean pixel x {scale:g}, {reference}"
        self._scale = scale

    def prepare(self):
        type(self).prepared += 1

    def score(self, pictures):
        type(self).scored += len(pictures)
        return [float(p.pixels.mean()) / 255 * self._scale for p in pictures]


class Contrast:
    """A corpus metric: the deviation of all pixels, with a floor."""

    name, version, unit, better = "contrast", 2, "levels", "lower"
    protocol = "standard deviation of pixels"

    def prepare(self):
        pass

    def measure(self, pictures):
        pixels = np.stack([picture.pixels for picture in pictures])
        detail = {"mean": np.float64(pixels.mean())}
        return CorpusValue(float(pixels.std()), len(pictures), 500.0, None, "nothing", detail)


class Unready(Brightness):
    def prepare(self):
        raise ModelError("weights.pt is missing", "there is no network", "Give it by hand.")


def metric(kind, **arguments):
    return MetricConfig(
        name=kind.name,
        title=kind.name.capitalize(),
        unit=kind.unit,
        better=kind.better,
        definition="A toy.",
        metric={"_target_": f"{HERE}.{kind.__name__}", **arguments},
    )


def task(folder, prompts=("a red dot", "two dots", "a ring", "no dot"), images=1):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pictures.jsonl"
    rows = [
        {"tag": "dots" if "dot" in text else "rings", "include": [], "prompt": text}
        for text in prompts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "pictures",
        "title": "Pictures",
        "version": 1,
        "licence": "none",
        "modality": "image",
        "source": {"kind": "file", "format": "geneval", "file": "pictures.jsonl"},
        "path": str(path),
        "images": images,
        "max_new_tokens": None,
    }


def config(folder, **changes):
    base = RunConfig(
        method=replace(method("token_sd", TOKEN_SD, ["draft"]), modality="any"),
        model=ModelConfig(
            name="squares",
            title="Squares",
            target="toy",
            draft="toy",
            modality="image",
            loader={"_target_": f"{HERE}.load"},
        ),
        task=task(folder),
        baseline=replace(method("ar", AR), modality="any"),
        sampling=SamplingConfig(temperature=1.0, seed=3),
        timing=TimingConfig(repeats=2, warmup=1),
        metric=(metric(Brightness), metric(Contrast)),
        results_dir=folder / "results",
        progress=False,
    )
    return replace(base, **changes)
