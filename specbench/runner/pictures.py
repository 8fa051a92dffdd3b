"""The pictures of a job on disk: a PNG for each sample and arm, beside the result file.

A picture follows from the tokens of repeat 0, so it is drawn once, outside of every timed region;
an interrupted job draws those that are missing from the journal's tokens. Measures and contact
sheets read the files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from specbench.errors import ModelError
from specbench.metrics.base import Picture
from specbench.models.image import ImageSide
from specbench.store.png import is_png, read_png, save_png
from specbench.tasks.base import Sample

_LONGEST_NAME = 120


class Album:
    """Draws, keeps and finds the pictures of one job.

    Args:
        results_dir: The results folder.
        name: The result file's name without suffix; the folder of the pictures has it too.
        image: The model's side that turns tokens into pixels.
        seed: Seed of the job's random streams, a part of the file names.
        samples: Every sample of the job.
    """

    def __init__(
        self, results_dir: Path, name: str, image: ImageSide, seed: int, samples: Sequence[Sample]
    ) -> None:
        self.folder = results_dir / name
        self._image = image
        self._seed = seed
        self._names = _file_names([sample.id for sample in samples])

    def path(self, sample_id: str, arm: str) -> Path:
        """Return where the picture of a sample and arm stands."""
        return self.folder / f"{self._names[sample_id]}.{arm}.seed{self._seed}.png"

    def relative(self, sample_id: str, arm: str) -> str:
        """Return the path relative to the result file's folder."""
        return f"{self.folder.name}/{self.path(sample_id, arm).name}"

    def keep(self, row: Mapping[str, Any]) -> None:
        """Draw and write the picture of one measurement, over an earlier one.

        Raises:
            ResultsError: If it cannot be written.
            ModelError: If the model cannot draw.
        """
        pixels = self._image.pixels(row["output_ids"][0])
        save_png(self.path(row["sample_id"], row["arm"]), pixels)

    def complete(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Draw the pictures of those measurements that have no readable file."""
        for row in rows:
            if not is_png(self.path(row["sample_id"], row["arm"])):
                self.keep(row)

    def gallery(self, samples: Sequence[Sample], arm: str) -> Gallery:
        """Return the pictures of some samples in one arm, read as they are asked for."""
        return Gallery(self, samples, arm)


class Gallery(Sequence[Picture]):
    """Pictures on disk as a sequence; one is in memory only while it is looked at."""

    def __init__(self, album: Album, samples: Sequence[Sample], arm: str) -> None:
        self._album = album
        self._samples = samples
        self._arm = arm

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Gallery(self._album, self._samples[index], self._arm)
        return self._picture(self._samples[index])

    def __iter__(self) -> Iterator[Picture]:
        return map(self._picture, self._samples)

    def _picture(self, sample: Sample) -> Picture:
        return Picture(
            sample_id=sample.id,
            category=sample.category,
            prompt=sample.turns[0],
            reference=sample.reference,
            pixels=read_png(self._album.path(sample.id, self._arm)),
        )


def check_drawing(image: ImageSide, model: str) -> None:
    """Refuse a model that cannot draw, before anything is measured.

    Raises:
        ModelError: If the pixel decoder is not there or its weights are wrong, with the cause.
    """
    try:
        image.pixels([])
    except ModelError as cause:
        raise ModelError(
            f"The model '{model}' cannot turn its tokens into pictures",
            ": ".join(part for part in (cause.what, cause.why) if part),
            f"{cause.fix} Or measure speed alone with pictures=false.".strip(),
        ) from cause


def _file_names(sample_ids: Sequence[str]) -> dict[str, str]:
    """Return a file name for each id, safe on any file system and different from all others."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for sample_id in sample_ids:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", sample_id).strip("-.")[:_LONGEST_NAME]
        if not name or name.lower() in taken:
            digest = hashlib.sha256(sample_id.encode()).hexdigest()[:8]
            name = f"{name}-{digest}".lstrip("-")
        taken.add(name.lower())
        names[sample_id] = name
    return names
