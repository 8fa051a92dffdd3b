"""Networks that turn pictures into the features between which distances are measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from specbench.errors import ConfigError
from specbench.metrics.framing import Framing, Pixels, choose
from specbench.metrics.frechet import Floats
from specbench.metrics.inception import NETWORKS, find_file, load
from specbench.metrics.weights import digest_of, option, resolve
from specbench.zoo.pictures.attribute_net import AttributeNet, extract
from specbench.zoo.pictures.attributes import as_input


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
    """Inception's pool features, in one of the ways in which published FIDs compute them.

    Mode `clean` is clean-fid's (Parmar et al., 2022): an antialiased bicubic resize in floating
    point. `legacy_tensorflow` resizes inside the network as TensorFlow did, like the ADM evaluator
    (Dhariwal and Nichol, 2021). `pytorch_fid` is Seitzer's package: bilinear, not antialiased,
    other numbers between -1 and 1. Each moves published numbers.

    Args:
        weights: The mode's published file (`inception.NETWORKS`) or its folder; None fetches it.
        mode: clean, legacy_tensorflow or pytorch_fid.
        crop: See `framing.Framing`, as `size` and `filter`: "center" is LANTERN's protocol.
        size: Resize to this many pixels before, as LANTERN and LlamaGen do (256).
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
        choose("mode", mode, tuple(NETWORKS))
        self._weights, self._network = weights, NETWORKS[mode]
        self._framing, self._batch = Framing(crop, size, filter), batch
        self._device = pick_device(device)
        self._net: Any = None
        self._digest = ""
        steps = ", ".join([*self._framing.words, self._network.words])
        self.protocol = f"Inception v3 ({self._network.file}) pool features, {steps}"

    def prepare(self, metric: str) -> None:
        """Load Inception, fetched at first use.

        Raises:
            ModelError: If the weights are neither given nor to be had.
        """
        if self._net is not None:
            return
        file = find_file(self._network, self._weights, metric)
        self._digest = digest_of(file)
        self._net = load(self._network, file, metric).to(self._device)

    def digest(self) -> str:
        """Return the digest of the weights and of the preprocessing."""
        return f"{self._digest} {self.protocol}"

    def extract(self, pictures: Iterable[Pixels]) -> Floats:
        """Return pool features, float64 [n, 2048]."""
        assert self._net is not None, "prepare() comes first"
        from cleanfid.resize import build_resizer  # type: ignore[import-untyped]

        resize = build_resizer(self._network.resizer)
        parts: list[Floats] = []
        resized = (np.asarray(resize(self._framing(one)), dtype=np.float32) for one in pictures)
        for _, alike in groupby(resized, key=lambda one: one.shape):
            while batch := list(islice(alike, self._batch)):
                parts.append(self._forward(batch))
        return np.concatenate(parts)

    def _forward(self, resized: Sequence[NDArray[np.float32]]) -> Floats:
        pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()
        with torch.inference_mode():
            found: Floats = self._net(pixels.to(self._device)).double().cpu().numpy()
        return found


def pick_device(device: str) -> torch.device:
    """Return the device of a name, where "auto" takes a GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
