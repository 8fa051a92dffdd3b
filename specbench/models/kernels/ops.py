"""A static forward out of kernels of our own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from specbench.models.kernels import attention, matmul, pointwise
from specbench.models.kernels.matmul import MatmulPlan
from specbench.models.linear import PlainLinear
from specbench.models.norm import HeadNorm
from specbench.models.ops import Ops, Place


class KernelOps(Ops):
    """The operations of a step; more than 16 tokens are multiplied by the library."""

    def place(self, place: Place) -> Place:
        """Return the place: kernels read lengths and masks themselves."""
        return place

    def rotate(
        self, qkv: Tensor, place: Place, keys: Tensor, values: Tensor, norm: HeadNorm | None
    ) -> Tensor:
        """Norm, rotate and store; return the queries."""
        return pointwise.rotate_and_store(
            qkv, place.cos, place.sin, keys, values, place.length, place.offsets, norm
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, place: Place) -> Tensor:
        """Attend to cached slots and among new tokens."""
        return attention.decode_attention(
            query, keys, values, place.length, place.ancestors, first=place.first
        )

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Norm [N, C] by its root mean square."""
        return pointwise.norm(x, weight, epsilon)

    def project(self, linear: Any, x: Tensor) -> Tensor:
        """Project [N, in] to [N, out]."""
        plan = _plan(linear, x)
        if plan is None:
            return linear(x)
        return matmul.few_token_matmul(x, linear.weight, None, linear.bias, plan=plan)

    def project_add(self, linear: Any, x: Tensor, residual: Tensor) -> Tensor:
        """Add a projection to the residual stream, [N, C]."""
        plan = _plan(linear, x)
        if plan is None:
            return linear.add(residual, x)
        return matmul.few_token_matmul(x, linear.weight, residual, linear.bias, plan=plan)

    def project_silu_mul(self, linear: Any, x: Tensor) -> Tensor:
        """Return silu(gate) * up, [N, F], of a projection [N, 2 F] with the gates first."""
        plan = _plan(linear, x, gated=True)
        if plan is None:
            return pointwise.silu_mul(linear(x))
        return matmul.matmul_silu_mul(x, linear.weight, linear.bias, plan=plan)


def _plan(linear: Any, x: Tensor, *, gated: bool = False) -> MatmulPlan | None:
    """Return how a kernel multiplies x [N, in]; None for the library's product."""
    if not isinstance(linear, PlainLinear) or x.shape[0] > matmul.MOST_TOKENS:
        return None
    weight = linear.weight
    return matmul.plan_of(tuple(weight.shape), weight.dtype, weight.device, gated=gated)
