"""Networks that turn pictures into the features between which distances are measured."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from specbench.errors import ConfigError, ModelError
from specbench.metrics.frechet import Floats
from specbench.metrics.weights import digest_of, first_line, missing, option, resolve
from specbench.paths import cache_dir
from specbench.zoo.pictures.attribute_net import AttributeNet, extract
from specbench.zoo.pictures.attributes import as_input

INCEPTION_FILE = "inception-2015-12-05.pt"
MODES = ("clean", "legacy_tensorflow")
FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}

Pixels = NDArray[np.uint8]


class Features(Protocol):
    """A feature extractor.

    Attributes:
        protocol: Network, weights and preprocessing in words.
        width: How many features a picture has.
    """

    protocol: str
    width: int

    def prepare(self, metric: str) -> None:
        """Load the network; raise a `SpecbenchError` that names a missing file.

        Args:
            metric: Which metric asks, for the message.
        """

    def digest(self) -> str:
        """Return the digest of the prepared weights and of the protocol."""

    def extract(self, pictures: Iterable[Pixels]) -> Floats:
        """Return the features [n, width] of pictures uint8 [H, W, 3]."""


class EmbeddedFeatures:
    """The attribute network of the embedded world.

    Args:
        weights: `embedded:NAME` or a folder that `AttributeNet.save` wrote.
    """

    def __init__(self, weights: str = "embedded:tiny_features") -> None:
        self._place = weights
        self._net: AttributeNet | None = None
        self._digest = ""
        self.width = 0
        self.protocol = f"attribute network {weights}, pictures as they are"

    def prepare(self, metric: str) -> None:
        """Load the network from package data."""
        if self._net is not None:
            return
        folder = resolve(self._place, metric, option(metric, "features"))
        self._digest = digest_of(folder)
        self._net = AttributeNet.load(folder)
        self.width = self._net.width

    def digest(self) -> str:
        """Return the digest of the folder."""
        return self._digest

    def extract(self, pictures: Iterable[Pixels]) -> Floats:
        """Return the penultimate activations, float64 [n, width].

        Raises:
            ConfigError: If a picture is not of the world's size.
        """
        assert self._net is not None, "prepare() comes first"
        batch = list(pictures)
        side = self._net.size
        for picture in batch:
            if picture.shape != (side, side, 3):
                raise ConfigError(
                    f"The embedded features read pictures of {side} x {side} pixels",
                    f"one is {picture.shape[1]} x {picture.shape[0]}",
                    "Use metric=fid for other models.",
                )
        found: Floats = extract(self._net, as_input(np.stack(batch))).double().numpy()
        return found


class InceptionFeatures:
    """Inception's pool features as clean-fid computes them (Parmar et al., 2022).

    The weights are the TensorFlow port of 2015 that clean-fid downloads; mode `clean` resizes to
    299 x 299 with an antialiased bicubic filter in floating point, which moves published numbers.

    Args:
        weights: `inception-2015-12-05.pt` or its folder; None lets clean-fid fetch it.
        mode: clean-fid's mode: clean or legacy_tensorflow (its legacy_pytorch has other weights).
        crop: "center" cuts the largest central square first (LANTERN's protocol), "none" not.
        size: Resize to this many pixels before, as LANTERN does (256); None leaves pictures alone.
        filter: Filter of that first resize.
        device: Where the network runs; "auto" takes a GPU where there is one.
        batch: Pictures in one forward.
    """

    width = 2048

    def __init__(
        self,
        weights: str | None = None,
        mode: str = "clean",
        crop: str = "none",
        size: int | None = None,
        filter: str = "lanczos",
        device: str = "auto",
        batch: int = 32,
    ) -> None:
        _choose("mode", mode, MODES)
        _choose("crop", crop, ("none", "center"))
        _choose("filter", filter, tuple(FILTERS))
        self._weights, self._mode, self._crop = weights, mode, crop
        self._size, self._filter, self._batch = size, filter, batch
        self._device = pick_device(device)
        self._net: Any = None
        self._digest = ""
        first = [
            "central square" if crop == "center" else "",
            f"{size} px {filter}" if size is not None else "",
        ]
        steps = ", ".join([*(step for step in first if step), f"clean-fid {mode} resize to 299 px"])
        self.protocol = f"Inception v3 ({INCEPTION_FILE}) pool features, {steps}"

    def prepare(self, metric: str) -> None:
        """Load Inception, fetched by clean-fid at first use.

        Raises:
            ModelError: If the weights are neither given nor to be had.
        """
        if self._net is not None:
            return
        from cleanfid.inception_torchscript import (  # type: ignore[import-untyped]
            InceptionV3W,
        )

        file = self._file(metric)
        self._digest = digest_of(file)
        try:
            with warnings.catch_warnings():
                # torch deprecates the format in which these weights are published.
                warnings.simplefilter("ignore", FutureWarning)
                net = InceptionV3W(
                    str(file.parent), download=False, resize_inside=self._mode != "clean"
                )
        except RuntimeError as error:
            raise ModelError(
                f"{metric} cannot read {file}",
                first_line(error),
                f"Remove it, or give another copy: {option(metric, 'weights')}=PATH",
            ) from error
        self._net = net.to(self._device)

    def digest(self) -> str:
        """Return the digest of the weights and of the preprocessing."""
        return f"{self._digest} {self.protocol}"

    def extract(self, pictures: Iterable[Pixels]) -> Floats:
        """Return pool features, float64 [n, 2048]."""
        assert self._net is not None, "prepare() comes first"
        resize = self._resizer()
        parts: list[Floats] = []
        waiting: list[NDArray[np.float32]] = []
        for picture in pictures:
            resized = np.asarray(resize(self._first(picture)), dtype=np.float32)
            if waiting and waiting[0].shape != resized.shape:
                parts.append(self._forward(waiting))
                waiting = []
            waiting.append(resized)
            if len(waiting) == self._batch:
                parts.append(self._forward(waiting))
                waiting = []
        if waiting:
            parts.append(self._forward(waiting))
        return np.concatenate(parts)

    def _forward(self, resized: Sequence[NDArray[np.float32]]) -> Floats:
        pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()
        with torch.inference_mode():
            found: Floats = self._net(pixels.to(self._device)).double().cpu().numpy()
        return found

    def _resizer(self) -> Callable[[Pixels], Any]:
        from cleanfid.resize import build_resizer  # type: ignore[import-untyped]

        resizer: Callable[[Pixels], Any] = build_resizer(self._mode)
        return resizer

    def _first(self, picture: Pixels) -> Pixels:
        """Cut and resize before clean-fid does."""
        if self._crop == "center":
            height, width = picture.shape[:2]
            side = min(height, width)
            top, left = round((height - side) / 2), round((width - side) / 2)
            picture = picture[top : top + side, left : left + side]
        if self._size is not None:
            image = Image.fromarray(picture).resize((self._size, self._size), FILTERS[self._filter])
            picture = np.asarray(image)
        return picture

    def _file(self, metric: str) -> Path:
        if self._weights is not None:
            place = resolve(self._weights, metric, option(metric, "weights"))
            file = place / INCEPTION_FILE if place.is_dir() else place
            if file.name == INCEPTION_FILE and file.is_file():
                return file
            raise ModelError(
                f"{metric} cannot find {INCEPTION_FILE}",
                f"'{place}' is not that file and does not hold it",
                f"Give the file or its folder: {option(metric, 'weights')}=PATH",
            )
        file = cache_dir() / "cleanfid" / INCEPTION_FILE
        if not file.is_file():
            _fetch_inception(file, metric)
        return file


def _fetch_inception(file: Path, metric: str) -> None:
    """Let clean-fid download its Inception; a broken download leaves nothing behind."""
    from cleanfid import downloads_helper  # type: ignore[import-untyped]

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            downloads_helper.check_download_inception(fpath=folder)
            shutil.move(Path(folder) / INCEPTION_FILE, file)
    except OSError as error:
        source = downloads_helper.inception_url
        raise missing(metric, INCEPTION_FILE, source, "weights", first_line(error)) from error


def pick_device(device: str) -> torch.device:
    """Return the device of a name, where "auto" takes a GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _choose(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"features.{key} is '{value}'", f"it must be one of {', '.join(choices)}")
