"""Inception v3 of 2015, the network of FID, from the two files in which ports are published.

Both hold the TensorFlow weights of 2015-12-05. StyleGAN's TorchScript file can resize as
TensorFlow 1 did; clean-fid and, in effect, the ADM evaluator use it. pytorch_fid's state dictionary
belongs to torchvision's module with patched blocks, which clean-fid ships.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from specbench.errors import ModelError
from specbench.metrics.weights import first_line, missing, option, resolve
from specbench.paths import cache_dir

TORCHSCRIPT_FILE = "inception-2015-12-05.pt"
PYTORCH_FILE = "pt_inception-2015-12-05-6726825d.pth"
PYTORCH_URL = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{PYTORCH_FILE}"
)
_PYTORCH_HASH = "6726825d"


class Network(NamedTuple):
    """How Inception is read and fed for one mode.

    Attributes:
        file: Name of the published file.
        resizer: clean-fid's name of the resizer that makes 299 pixels, or leaves it to the network.
        words: The resizing, for protocols.
        load: Reads the file into a function from pixels [n, 3, H, W] in 0 to 255 to [n, 2048].
        fetch: Brings the file into a folder; may raise an `OSError`.
        source: Where from, for messages.
    """

    file: str
    resizer: str
    words: str
    load: Callable[[Path], nn.Module]
    fetch: Callable[[Path], None]
    source: str


class _FromBytes(nn.Module):  # type: ignore[misc]
    """pytorch_fid's normalisation around its network, which reads pixels in -1 to 1."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels [n, 3, 299, 299] in 0 to 255 to features [n, 2048]."""
        features: Tensor = self.net(2 * (pixels / 255) - 1)
        return features


def _load_torchscript(resize: bool) -> Callable[[Path], nn.Module]:
    def load(file: Path) -> nn.Module:
        from cleanfid.inception_torchscript import (  # type: ignore[import-untyped]
            InceptionV3W,
        )

        with warnings.catch_warnings():
            # torch deprecates the format in which these weights are published.
            warnings.simplefilter("ignore", FutureWarning)
            net: nn.Module = InceptionV3W(str(file.parent), download=False, resize_inside=resize)
        return net

    return load


def _load_pytorch(file: Path) -> nn.Module:
    """Read pytorch_fid's weights into torchvision's module with the patched blocks."""
    from cleanfid import inception_pytorch as patched  # type: ignore[import-untyped]
    from torchvision.models import inception_v3  # type: ignore[import-untyped]

    state = torch.load(file, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        net = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        for letter, channels, pooled in (("b", 192, 32), ("c", 256, 64), ("d", 288, 64)):
            setattr(net, f"Mixed_5{letter}", patched.FIDInceptionA(channels, pool_features=pooled))
        for letter, width in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            setattr(net, f"Mixed_6{letter}", patched.FIDInceptionC(768, channels_7x7=width))
        net.Mixed_7b, net.Mixed_7c = patched.FIDInceptionE_1(1280), patched.FIDInceptionE_2(2048)
    net.load_state_dict(state, assign=True)
    net.dropout = net.fc = nn.Identity()
    return _FromBytes(net).eval().requires_grad_(False)


def _fetch_torchscript(folder: Path) -> None:
    from cleanfid import downloads_helper

    downloads_helper.check_download_inception(fpath=str(folder))


def _fetch_pytorch(folder: Path) -> None:
    torch.hub.download_url_to_file(PYTORCH_URL, str(folder / PYTORCH_FILE), _PYTORCH_HASH, False)


_STYLEGAN = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"

NETWORKS = {
    "clean": Network(
        TORCHSCRIPT_FILE,
        "clean",
        "clean-fid clean resize to 299 px",
        _load_torchscript(resize=False),
        _fetch_torchscript,
        _STYLEGAN,
    ),
    "legacy_tensorflow": Network(
        TORCHSCRIPT_FILE,
        "legacy_tensorflow",
        "clean-fid legacy_tensorflow resize to 299 px (TensorFlow's own, as in the ADM evaluator)",
        _load_torchscript(resize=True),
        _fetch_torchscript,
        _STYLEGAN,
    ),
    "pytorch_fid": Network(
        PYTORCH_FILE,
        "legacy_pytorch",
        "pytorch_fid resize to 299 px (bilinear without antialiasing)",
        _load_pytorch,
        _fetch_pytorch,
        PYTORCH_URL.rpartition("/")[0],
    ),
}
"""The networks by the mode that names them."""


def find_file(network: Network, place: str | None, metric: str) -> Path:
    """Return a network's file: a local copy, the cached one, or one that is fetched now.

    Args:
        network: Whose.
        place: The file or its folder; None stands for the cache folder.
        metric: Which metric asks, for messages.

    Raises:
        ModelError: If it is neither there nor to be had.
    """
    if place is None:
        file = cache_dir() / "cleanfid" / network.file
        if not file.is_file():
            _fetch(network, file, metric)
        return file
    found = resolve(place, metric, option(metric, "weights"))
    file = found / network.file if found.is_dir() else found
    if file.name == network.file and file.is_file():
        return file
    raise ModelError(
        f"{metric} cannot find {network.file}",
        f"'{found}' is not that file and does not hold it",
        f"Give the file or its folder: {option(metric, 'weights')}=PATH",
    )


def load(network: Network, file: Path, metric: str) -> nn.Module:
    """Read a network.

    Raises:
        ModelError: If the file holds something else.
    """
    try:
        return network.load(file)
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{metric} cannot read {file}",
            first_line(error),
            f"Remove it, or give another copy: {option(metric, 'weights')}=PATH",
        ) from error


def _fetch(network: Network, file: Path, metric: str) -> None:
    """Download a file; a broken download leaves nothing behind."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            network.fetch(Path(folder))
            shutil.move(Path(folder) / network.file, file)
    except (OSError, RuntimeError) as error:
        raise missing(metric, network.file, network.source, "weights", first_line(error)) from error
