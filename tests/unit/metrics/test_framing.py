"""The first crop and resize of an evaluation, against filters that are written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from specbench.errors import ConfigError
from specbench.metrics.framing import Framing
from tests.unit.metrics.pytorch_inception import resized


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def cubic(picture: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """Keys' cubic of four pixels a side, a = -0.75, the border repeated; not antialiased."""

    def weight(distance: NDArray[np.float64]) -> NDArray[np.float64]:
        a, d = -0.75, np.abs(distance)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    image = picture.astype(np.float64)
    for axis in (0, 1):
        length = image.shape[axis]
        at = (np.arange(side) + 0.5) * length / side - 0.5
        base = np.floor(at).astype(int)
        shape = [-1 if index == axis else 1 for index in range(3)]
        image = sum(
            np.take(image, np.clip(base + tap, 0, length - 1), axis)
            * weight(at - (base + tap)).reshape(shape)
            for tap in (-1, 0, 1, 2)
        )
    return image


def test_llamagens_384_become_256_by_torchs_bicubic() -> None:
    picture = noise(384, 384)
    got = Framing(size=256, filter="torch_bicubic")(picture)
    want = np.clip(cubic(picture, 256) + 0.5, 0, 255)
    assert got.shape == (256, 256, 3) and got.dtype == np.uint8
    assert np.abs(got - want).max() < 1.01 and (got == np.floor(want)).mean() > 0.999
    other = Framing(size=256, filter="bicubic")(picture)
    assert np.abs(got.astype(int) - other.astype(int)).max() > 20


def test_bytes_instead_of_the_decoders_numbers_cost_less_than_a_level() -> None:
    """The release resizes before it rounds and cuts (`sample_c2i_ddp.py`), and we a PNG."""
    drawn = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1
    small = F.interpolate(drawn, size=(64, 64), mode="bicubic")
    want = torch.clamp(127.5 * small + 128.0, 0, 255).to(torch.uint8)
    png = torch.clamp(127.5 * drawn + 128.0, 0, 255).to(torch.uint8)
    got = Framing(size=64, filter="torch_bicubic")(png[0].permute(1, 2, 0).numpy())
    apart = np.abs(got.astype(int) - want[0].permute(1, 2, 0).numpy().astype(int))
    assert 0 < apart.mean() < 1


def test_sjds_299_are_torchs_bilinear_of_bytes() -> None:
    picture = noise(512, 640)
    got = Framing(size=299, filter="torch_bilinear")(picture)
    assert np.abs(got / 255 - resized(picture)).max() < 1.5 / 255
    smooth = Framing(size=299, filter="bilinear")(picture)
    assert np.abs(got.astype(int) - smooth.astype(int)).max() > 50


def test_a_picture_may_stay_as_it_is() -> None:
    picture = noise(9, 12)
    assert Framing()(picture) is picture and Framing().words == []
    assert np.array_equal(Framing(crop="center")(picture), picture[:, 2:11])


def test_the_words_name_crop_size_and_filter() -> None:
    assert Framing("center", 256).words == ["central square", "256 px lanczos"]
    words = Framing(size=256, filter="torch_bicubic").words
    assert words == ["256 px bicubic without antialiasing"]
    with pytest.raises(ConfigError, match="filter is 'cubic'"):
        Framing(filter="cubic")
    with pytest.raises(ConfigError, match="crop is 'centre'"):
        Framing("centre")
