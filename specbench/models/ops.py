"""What a static forward is made of: kernels where a device runs them, else plain torch.

Shapes: B rows, T new tokens, N = B T, C channels, H query heads, G key-value heads, D head width,
F feed-forward width, S cache slots, W slots of a tree mask.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from specbench.models import kernels
from specbench.models.kernels import HeadScale, reference
from specbench.models.lean_weights import Layer
from specbench.models.linear import Linear, PackedLinear, PlainLinear, RowLinear

Head = Callable[[Tensor], Tensor]


class Ops:
    """The operations of a step; `models.kernels` says what each computes."""

    def adopt(self, layer: Layer) -> Layer:
        """Return a layer whose projections these operations can take."""
        return layer

    def adopt_head(self, head: Head, hidden: Tensor) -> Head:
        """Return a head that these operations can take.

        Args:
            head: [N, C] -> [N, K].
            hidden: [1, C], something to try it with.
        """
        return head

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        length: Tensor,
        ancestors: Tensor | None,
        first: Tensor | None,
    ) -> Tensor:
        """Attend to cached slots and among new tokens; see `reference.decode_attention`."""
        return kernels.decode_attention(query, keys, values, length, ancestors, first=first)

    def rotate(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        length: Tensor,
        offsets: Tensor | None,
        norm: HeadScale | None,
    ) -> Tensor:
        """Norm, rotate and store; return the queries; see `reference.rotate_and_store`."""
        return kernels.rotate_and_store(qkv, cos, sin, keys, values, length, offsets, norm)

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


class CompilerOps(Ops):
    """Operations that a compiler may see through and fuse; only attention stays our kernel.

    On a CPU the packed weights of projections are beyond a compiler, and faster than what it
    would write: those stay whole.
    """

    def adopt(self, layer: Layer) -> Layer:
        """Return a layer whose packed projections a compiler does not look into."""
        return replace(
            layer,
            qkv=_closed(layer.qkv),
            output=_closed(layer.output),
            gate_up=_closed(layer.gate_up),
            down=_closed(layer.down),
        )

    @torch.inference_mode()
    def adopt_head(self, head: Head, hidden: Tensor) -> Head:
        """Return a head that a compiler does not look into, where packed weights may be in it."""
        if hidden.device.type != "cpu" or isinstance(head, PlainLinear):
            return head
        logits = head(hidden)
        return _Closed(head, logits.shape[-1], logits.dtype)

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        length: Tensor,
        ancestors: Tensor | None,
        first: Tensor | None,
    ) -> Tensor:
        """Attend to cached slots and among new tokens; see `reference.decode_attention`."""
        if query.device.type == "cpu":
            return reference.decode_attention(query, keys, values, length, ancestors, first=first)
        return _attention(query, keys, values, length, ancestors, first)

    def rotate(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        length: Tensor,
        offsets: Tensor | None,
        norm: HeadScale | None,
    ) -> Tensor:
        """Norm, rotate and store; return the queries; see `reference.rotate_and_store`."""
        return reference.rotate_and_store(qkv, cos, sin, keys, values, length, offsets, norm)

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Norm [N, C] by its root mean square."""
        return reference.add_norm(x, None, weight, epsilon)[1]

    def project(self, linear: Linear, x: Tensor) -> Tensor:
        """Project [N, in] to [N, out]."""
        return linear(x)

    def project_add(self, linear: Linear, x: Tensor, residual: Tensor) -> Tensor:
        """Add a projection to the residual stream, [N, C]."""
        return residual + linear(x)

    def project_add_norm(
        self, linear: Linear, x: Tensor, residual: Tensor, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream with a projection added, and the norm of that, [N, C]."""
        return reference.add_norm(linear(x), residual, weight, epsilon)

    def project_silu_mul(self, linear: Linear, x: Tensor) -> Tensor:
        """Return silu(gate) * up, [N, F], of a projection [N, 2 F] with the gates first."""
        return reference.silu_mul(linear(x))


class _Closed:
    """A function of [N, in] that a compiler calls and does not look into.

    Args:
        function: [N, in] -> [N, out].
        outputs: Numbers that it makes of a token.
        dtype: Their type; None for that of the input.
        parameters: Its weights and biases.
    """

    def __init__(
        self, function: Head, outputs: int, dtype: torch.dtype | None = None, parameters: int = 0
    ) -> None:
        self._function = function
        self._number = len(_FUNCTIONS)
        self._dtype = dtype
        self.outputs, self.parameters = outputs, parameters
        _FUNCTIONS.append(weakref.ref(self))

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, out]."""
        return _call(x, self._number, self.outputs, self._dtype or x.dtype)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return residual + result."""
        return residual + self(x)

    def run(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self._function(x)


_FUNCTIONS: list[weakref.ref[_Closed]] = []


def _closed(linear: Linear) -> Linear:
    if not isinstance(linear, PackedLinear):
        return linear
    return _Closed(linear, linear.outputs, None, linear.parameters)


@torch.library.custom_op(
    "specbench::call",
    mutates_args=(),
    schema="(Tensor x, int number, int outputs, ScalarType dtype) -> Tensor",
)
def _call(x: Tensor, number: int, outputs: int, dtype: torch.dtype) -> Tensor:
    """Call a closed function by its number: a compiler knows numbers, not objects."""
    closed = _FUNCTIONS[number]()
    assert closed is not None
    return closed.run(x)


@_call.register_fake
def _call_shape(x: Tensor, number: int, outputs: int, dtype: torch.dtype) -> Tensor:
    return x.new_empty(x.shape[0], outputs, dtype=dtype)


@torch.library.custom_op(
    "specbench::decode_attention",
    mutates_args=(),
    schema="(Tensor query, Tensor keys, Tensor values, Tensor length, Tensor? ancestors, "
    "Tensor? first) -> Tensor",
)
def _attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    length: Tensor,
    ancestors: Tensor | None,
    first: Tensor | None,
) -> Tensor:
    """Attend by the kernel, which a compiler need not look into."""
    return kernels.decode_attention(query, keys, values, length, ancestors, first=first)


@_attention.register_fake
def _attention_shape(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    length: Tensor,
    ancestors: Tensor | None,
    first: Tensor | None,
) -> Tensor:
    return query.new_empty(query.shape)
