"""pytorch_fid written down: its resize, its network, and a state dictionary in its layout.

The network is Szegedy et al.'s Inception v3 as the weights of 2015-12-05 need it: average pooling
that leaves padding out, and a maximum in the last block. Names and shapes are those of the
published `pt_inception-2015-12-05-6726825d.pth`. Nothing of torchvision or clean-fid is used.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def resized(picture: NDArray[np.uint8], side: int = 299) -> NDArray[np.float64]:
    """Bilinear between pixel centres, whatever lies between: float [side, side, 3] in 0 to 1."""
    image = picture.astype(np.float64) / 255
    for axis in (0, 1):
        length = image.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        share = (at - low).reshape([-1 if index == axis else 1 for index in range(3)])
        image = np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share
    return image


class Inception:
    """The network; its weights are made up.

    Attributes:
        state: Names and tensors.
    """

    def __init__(self, seed: int = 0) -> None:
        self.state: dict[str, Tensor] = {}
        self._source = torch.Generator().manual_seed(seed)
        self.pooled(torch.zeros(1, 3, 75, 75))

    def features(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the 2,048 features of a picture."""
        pixels = torch.from_numpy(resized(picture)).float().permute(2, 0, 1)[None]
        return self.pooled(2 * pixels - 1).double().numpy()[0]

    @torch.inference_mode()
    def pooled(self, x: Tensor) -> Tensor:
        x = self._conv("Conv2d_1a_3x3", x, 32, 3, stride=2)
        x = self._conv("Conv2d_2a_3x3", x, 32, 3)
        x = F.max_pool2d(self._conv("Conv2d_2b_3x3", x, 64, 3, padding=1), 3, 2)
        x = self._conv("Conv2d_3b_1x1", x, 80, 1)
        x = F.max_pool2d(self._conv("Conv2d_4a_3x3", x, 192, 3), 3, 2)
        for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
            x = self._five(f"Mixed_5{letter}", x, pooled)
        x = torch.cat(
            [
                self._conv("Mixed_6a.branch3x3", x, 384, 3, stride=2),
                self._double("Mixed_6a", x, stride=2),
                F.max_pool2d(x, 3, 2),
            ],
            1,
        )
        for letter, width in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            x = self._seven(f"Mixed_6{letter}", x, width)
        x = self._shrink("Mixed_7a", x)
        x = self._wide("Mixed_7b", x, average)
        x = self._wide("Mixed_7c", x, lambda y: F.max_pool2d(y, 3, 1, 1))
        self._tensor("fc.weight", (1008, 2048), 0.01)
        self._tensor("fc.bias", (1008,), 0.01)
        return x.mean(dim=(2, 3))

    def _five(self, name: str, x: Tensor, pooled: int) -> Tensor:
        five = self._conv(f"{name}.branch5x5_1", x, 48, 1)
        parts = [
            self._conv(f"{name}.branch1x1", x, 64, 1),
            self._conv(f"{name}.branch5x5_2", five, 64, 5, padding=2),
            self._double(name, x),
            self._conv(f"{name}.branch_pool", average(x), pooled, 1),
        ]
        return torch.cat(parts, 1)

    def _double(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        x = self._conv(f"{name}.branch3x3dbl_1", x, 64, 1)
        x = self._conv(f"{name}.branch3x3dbl_2", x, 96, 3, padding=1)
        padding = 1 if stride == 1 else 0
        return self._conv(f"{name}.branch3x3dbl_3", x, 96, 3, stride=stride, padding=padding)

    def _seven(self, name: str, x: Tensor, width: int) -> Tensor:
        single = self._conv(f"{name}.branch7x7_1", x, width, 1)
        single = self._conv(f"{name}.branch7x7_2", single, width, (1, 7))
        single = self._conv(f"{name}.branch7x7_3", single, 192, (7, 1))
        double = self._conv(f"{name}.branch7x7dbl_1", x, width, 1)
        for index, kernel in ((2, (7, 1)), (3, (1, 7)), (4, (7, 1))):
            double = self._conv(f"{name}.branch7x7dbl_{index}", double, width, kernel)
        double = self._conv(f"{name}.branch7x7dbl_5", double, 192, (1, 7))
        one = self._conv(f"{name}.branch1x1", x, 192, 1)
        return torch.cat([one, single, double, self._pool(name, average(x))], 1)

    def _shrink(self, name: str, x: Tensor) -> Tensor:
        three = self._conv(f"{name}.branch3x3_1", x, 192, 1)
        three = self._conv(f"{name}.branch3x3_2", three, 320, 3, stride=2)
        seven = self._conv(f"{name}.branch7x7x3_1", x, 192, 1)
        seven = self._conv(f"{name}.branch7x7x3_2", seven, 192, (1, 7))
        seven = self._conv(f"{name}.branch7x7x3_3", seven, 192, (7, 1))
        seven = self._conv(f"{name}.branch7x7x3_4", seven, 192, 3, stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def _wide(self, name: str, x: Tensor, pool) -> Tensor:
        one = self._conv(f"{name}.branch1x1", x, 320, 1)
        three = self._conv(f"{name}.branch3x3_1", x, 384, 1)
        double = self._conv(f"{name}.branch3x3dbl_1", x, 448, 1)
        double = self._conv(f"{name}.branch3x3dbl_2", double, 384, 3, padding=1)
        parts = [one]
        for branch, y in ((f"{name}.branch3x3_2", three), (f"{name}.branch3x3dbl_3", double)):
            parts.append(self._conv(f"{branch}a", y, 384, (1, 3)))
            parts.append(self._conv(f"{branch}b", y, 384, (3, 1)))
        return torch.cat([*parts, self._pool(name, pool(x))], 1)

    def _pool(self, name: str, x: Tensor) -> Tensor:
        return self._conv(f"{name}.branch_pool", x, 192, 1)

    def _conv(self, name, x, out, kernel, stride=1, padding=None) -> Tensor:
        """A convolution without bias, then batch normalisation; flat kernels keep the size."""
        if isinstance(kernel, int):
            kernel, padding = (kernel, kernel), padding or 0
        else:
            padding = (kernel[0] // 2, kernel[1] // 2)
        fan = x.shape[1] * kernel[0] * kernel[1]
        weight = self._tensor(f"{name}.conv.weight", (out, x.shape[1], *kernel), (2 / fan) ** 0.5)
        gain = self._tensor(f"{name}.bn.weight", (out,), 0.1, 1.0)
        bias = self._tensor(f"{name}.bn.bias", (out,), 0.1)
        mean = self._tensor(f"{name}.bn.running_mean", (out,), 0.1)
        variance = self._tensor(f"{name}.bn.running_var", (out,), 0.05, 1.0)
        x = F.conv2d(x, weight, stride=stride, padding=padding)
        shape = (1, -1, 1, 1)
        normed = (x - mean.view(shape)) / (variance.view(shape) + 1e-3).sqrt()
        return F.relu(normed * gain.view(shape) + bias.view(shape))

    def _tensor(self, name, shape, spread, centre=0.0) -> Tensor:
        if name not in self.state:
            self.state[name] = torch.randn(shape, generator=self._source) * spread + centre
        return self.state[name]


def average(x: Tensor) -> Tensor:
    """The mean of the neighbours that are there: padding counts for nothing."""
    inside = F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1)
    return F.avg_pool2d(x, 3, 1, 1) / inside
