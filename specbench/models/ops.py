"""What a static forward is made of: the library's operations, over tensors that stay in place.

Shapes: B rows, T new tokens, N = B T, C channels, H query heads, G key-value heads, D head width,
F feed-forward width, S cache slots, W slots of a tree mask.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.models.lean_weights import Layer
from specbench.models.linear import Linear, PackedLinear, PlainLinear
from specbench.models.masks import visible_slots
from specbench.models.norm import HeadNorm, rms_norm

Head = Callable[[Tensor], Tensor]


class Place(NamedTuple):
    """Where the new tokens of a step stand, on the device; all layers of a step share it.

    Attributes:
        length: [B] int32, cached tokens of each row before the T new ones.
        tokens: T.
        slots: S.
        shared: H / G, query heads that share a key-value head.
        cos: [P, 1, D] cosines of all positions.
        sin: [P, 1, D] sines, the first half of D negated (`lean_weights.rotary_tables`).
        offsets: [T] int, positions of the new tokens behind `length`; None for 0 .. T - 1. The
            slots are in order whatever the positions are.
        ancestors: [T, W] bool, who sees whom; None for causal order (`masks.visible_slots`).
        first: [B] int32, leading slots that nobody may see; None for 0.
    """

    length: Tensor
    tokens: int
    slots: int
    shared: int
    cos: Tensor
    sin: Tensor
    offsets: Tensor | None
    ancestors: Tensor | None
    first: Tensor | None


class _Found(NamedTuple):
    """What the library's operations read instead of a `Place`: computed once a step.

    Attributes:
        cos: [B, T, 1, D].
        sin: [B, T, 1, D].
        row: [B, 1], indices of the rows.
        slot: [B, T], slots of the new tokens.
        visible: [B, 1, R T, S] bool; the R = H / G heads of a group stand as further tokens.
    """

    cos: Tensor
    sin: Tensor
    row: Tensor
    slot: Tensor
    visible: Tensor


class Ops:
    """The operations of a step, as the library has them.

    None of them asks the device for a value, so that a CUDA graph may capture them and a
    compiler may see through them.
    """

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

    def place(self, place: Place) -> Any:
        """Return what `rotate` and `attend` of this step's layers are given as `place`."""
        device = place.length.device
        order = torch.arange(place.tokens, device=device)
        length = place.length[:, None].long()
        positions = length + (order if place.offsets is None else place.offsets)
        visible = visible_slots(
            place.length, place.tokens, place.slots, place.ancestors, place.first
        )
        visible = visible[:, None].expand(-1, place.shared, -1, -1).flatten(1, 2)[:, None]
        row = torch.arange(length.shape[0], device=device)[:, None]
        return _Found(place.cos[positions], place.sin[positions], row, length + order, visible)

    def rotate(
        self, qkv: Tensor, place: Any, keys: Tensor, values: Tensor, norm: HeadNorm | None
    ) -> Tensor:
        """Norm and rotate queries and keys, write keys and values, and return the queries.

        Args:
            qkv: [N, (H + 2 G) D], a row's tokens one after the other.
            place: What `place` returned.
            keys: [B, G, S, D] of one layer; the new tokens' slots are written.
            values: [B, G, S, D], likewise.
            norm: Of queries and keys, head by head, or None.

        Returns:
            Queries [B, T, H, D].
        """
        rows, groups, _, width = keys.shape
        split = qkv.view(rows, -1, qkv.shape[-1] // width, width)
        turned = split[:, :, :-groups]
        if norm is not None:
            turned = norm(turned)
        turned = torch.addcmul(turned * place.cos, turned.roll(width // 2, -1), place.sin)
        keys[place.row, :, place.slot] = turned[:, :, -groups:]
        values[place.row, :, place.slot] = split[:, :, -groups:]
        return turned[:, :, :-groups]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, place: Any) -> Tensor:
        """Attend from T new tokens to a row's cached slots and to each other.

        The heads of a group stand as further queries of one head, so that its keys are read once.

        Args:
            query: [B, T, H, D].
            keys: [B, G, S, D], the new tokens' slots included; what nobody sees is finite.
            values: [B, G, S, D].
            place: What `place` returned.

        Returns:
            [B, T, H, D].
        """
        rows, count, heads, width = query.shape
        groups = keys.shape[1]
        folded = query.view(rows, count, groups, -1, width).permute(0, 2, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            folded.reshape(rows, groups, -1, width), keys, values, attn_mask=place.visible
        )
        attended = attended.view(rows, groups, -1, count, width).permute(0, 3, 1, 2, 4)
        return attended.reshape(query.shape)

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Norm [N, C] by its root mean square."""
        return rms_norm(x, weight, epsilon)

    def project(self, linear: Linear, x: Tensor) -> Tensor:
        """Project [N, in] to [N, out]."""
        return linear(x)

    def project_add(self, linear: Linear, x: Tensor, residual: Tensor) -> Tensor:
        """Add a projection to the residual stream, [N, C]."""
        return linear.add(residual, x)

    def project_silu_mul(self, linear: Linear, x: Tensor) -> Tensor:
        """Return silu(gate) * up, [N, F], of a projection [N, 2 F] with the gates first."""
        gate, up = linear(x).chunk(2, -1)
        return F.silu(gate) * up


class CompilerOps(Ops):
    """Operations that a compiler may see through and fuse.

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

    def project_add(self, linear: Linear, x: Tensor, residual: Tensor) -> Tensor:
        """Add a projection to the residual stream, [N, C]."""
        return residual + linear(x)


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
