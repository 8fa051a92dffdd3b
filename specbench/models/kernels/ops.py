"""A static forward out of kernels of our own, each beside the library's product that may win."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from specbench.models import kernels
from specbench.models.kernels import HeadScale, Projection
from specbench.models.lean_weights import Layer
from specbench.models.linear import Linear, RowLinear
from specbench.models.norm import HeadNorm, LayerHeadNorm, RMSHeadNorm
from specbench.models.ops import Head, Ops, Place


class KernelOps(Ops):
    """The operations of a step; `models.kernels` says what each computes."""

    def prepare(self, layers: Iterable[Layer], head: Head) -> None:
        """Measure which way of multiplying is the fastest for each weight."""
        found: list[tuple[Any, bool]] = [(head, False)]
        for each in layers:
            found += [(each.qkv, False), (each.output, False)]
            found += [(each.gate_up, True), (each.down, False)]
        kernels.prepare(
            Projection(linear.weight, gated)
            for linear, gated in found
            if isinstance(linear, RowLinear)
        )

    def place(self, place: Place) -> Place:
        """Return the place: kernels read lengths and masks themselves."""
        return place

    def rotate(
        self, qkv: Tensor, place: Place, keys: Tensor, values: Tensor, norm: HeadNorm | None
    ) -> Tensor:
        """Norm, rotate and store; return the queries; see `reference.rotate_and_store`."""
        return kernels.rotate_and_store(
            qkv, place.cos, place.sin, keys, values, place.length, place.offsets, _scale(norm)
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, place: Place) -> Tensor:
        """Attend to cached slots and among new tokens; see `reference.decode_attention`."""
        return kernels.decode_attention(
            query, keys, values, place.length, place.ancestors, first=place.first
        )

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Norm [N, C] by its root mean square."""
        return kernels.add_norm(x, None, weight, epsilon)[1]

    def project(self, linear: Linear, x: Tensor) -> Tensor:
        """Project [N, in] to [N, out]."""
        if isinstance(linear, RowLinear):
            return kernels.few_token_matmul(x, linear.weight, None, linear.bias)
        return linear(x)

    def project_add(self, linear: Linear, x: Tensor, residual: Tensor) -> Tensor:
        """Add a projection to the residual stream, [N, C]."""
        if isinstance(linear, RowLinear):
            return kernels.few_token_matmul(x, linear.weight, residual, linear.bias)
        return linear.add(residual, x)

    def project_add_norm(
        self, linear: Linear, x: Tensor, residual: Tensor, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream with a projection added, and the norm of that, [N, C]."""
        if isinstance(linear, RowLinear):
            return kernels.matmul_add_norm(x, linear.weight, residual, weight, epsilon, linear.bias)
        return kernels.add_norm(linear.add(residual, x), None, weight, epsilon)

    def project_silu_mul(self, linear: Linear, x: Tensor) -> Tensor:
        """Return silu(gate) * up, [N, F], of a projection [N, 2 F] with the gates first."""
        if isinstance(linear, RowLinear):
            return kernels.matmul_silu_mul(x, linear.weight, linear.bias)
        return kernels.silu_mul(linear(x))


def _scale(norm: HeadNorm | None) -> HeadScale | None:
    """Return a norm of heads as the kernels read it."""
    if isinstance(norm, RMSHeadNorm):
        return HeadScale(norm.weight, norm.epsilon)
    if isinstance(norm, LayerHeadNorm):
        return HeadScale(norm.weight, norm.epsilon, norm.bias)
    assert norm is None, "a norm of heads that the kernels do not know"
    return None
