"""Weights as the native step reads them, and the structures in which it is told of them."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p

import torch
from torch import Tensor

from specbench.models.native import library

_LARGE_PAGE = 2**21
_BLOCK = 2**26
_MADV_HUGEPAGE = 14


def _numbers(*names: str) -> list[tuple[str, type[c_int64]]]:
    return [(name, c_int64) for name in names]


class CLinear(Structure):
    """`Linear` of step.cpp."""

    _fields_ = [
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("inputs", c_int64),
        ("outputs", c_int64),
        ("halved", c_int64),
    ]


class CLayer(Structure):
    """`Layer` of step.cpp."""

    _fields_ = [
        ("qkv", CLinear),
        ("output", CLinear),
        ("gate_up", CLinear),
        ("down", CLinear),
        ("attention_norm", c_void_p),
        ("feed_forward_norm", c_void_p),
        ("head_norm", c_void_p),
        ("head_bias", c_void_p),
        ("head_epsilon", c_double),
        ("window", c_int64),
    ]


class CModel(Structure):
    """`Model` of step.cpp."""

    _fields_ = [
        *_numbers("half", "layers", "channels", "heads", "groups", "width", "inner", "vocabulary"),
        ("epsilon", c_double),
        ("layer", POINTER(CLayer)),
        ("final_norm", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("embedding", c_void_p),
        ("head", CLinear),
    ]


class CStep(Structure):
    """`Step` of step.cpp."""

    _fields_ = [
        *_numbers("rows", "tokens", "last", "first_layer", "end_layer", "threads", "slots", "kept"),
        ("ids", c_void_p),
        ("lengths", c_void_p),
        ("padding", c_void_p),
        ("features", c_void_p),
        ("mask_width", c_int64),
        ("mask_stride", c_int64),
        ("offsets", c_void_p),
        ("ancestors", c_void_p),
        ("skip", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("taps", c_void_p),
        ("logits", c_void_p),
    ]


class Room:
    """Memory for packed weights, in large pages where Linux gives them.

    A step reads all weights once. In small pages it would spend a tenth of a plain step, and a
    quarter of one of eight tokens, on finding where they are.
    """

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)

    def take(self, values: int, dtype: torch.dtype) -> Tensor:
        """Return memory for so many values; what is left of a block is never touched."""
        size = values * dtype.itemsize
        if size > self._block.numel():
            self._block = _large_pages(max(size, _BLOCK))
        taken, self._block = self._block[:size], self._block[-(-size // 64) * 64 :]
        return taken.view(dtype)


def _large_pages(size: int) -> Tensor:
    """Return bytes that begin on a large page."""
    whole = torch.empty(size + _LARGE_PAGE, dtype=torch.uint8)
    skipped = -whole.data_ptr() % _LARGE_PAGE
    if sys.platform == "linux":
        start, count = c_void_p(whole.data_ptr() + skipped), ctypes.c_size_t(size)
        ctypes.CDLL(None).madvise(start, count, _MADV_HUGEPAGE)
    return whole[skipped : skipped + size]


class NativeLinear:
    """A projection in the native step's layout, which multiplies by itself too.

    Args:
        weight: [out, in], float32 or bfloat16, on the CPU, with an even `in`.
        bias: [out] or None.
        room: Where the packed weight goes.
        halves: Whether the step takes the outputs' two halves together (gate and up).

    Attributes:
        described: What the step is told of it; its memory lives as long as this object.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, room: Room, *, halves: bool = False
    ) -> None:
        outputs, inputs = weight.shape
        self.outputs = outputs
        self.parameters = weight.numel() + (0 if bias is None else bias.numel())
        self._library = library.load()
        self._half = int(weight.dtype == torch.bfloat16)
        half = outputs // 2 if halves else 0
        panel = self._library.panel_outputs()
        panels = -(-(half or outputs) // panel) * (2 if halves else 1)
        self._packed = room.take(panels * panel * inputs, weight.dtype)
        self._bias = None if bias is None else bias.float().contiguous()
        self.described = CLinear(
            self._packed.data_ptr(),
            None if self._bias is None else self._bias.data_ptr(),
            inputs,
            outputs,
            half,
        )
        rows = weight.contiguous()
        self._library.pack_weight(
            ctypes.byref(self.described),
            c_int64(self._half),
            c_void_p(rows.data_ptr()),
            c_void_p(self.described.weight),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, out]."""
        return self._project(x, None)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return residual + projection."""
        return self._project(x, residual.contiguous())

    def _project(self, x: Tensor, residual: Tensor | None) -> Tensor:
        dtype = self._packed.dtype
        assert x.dtype == dtype and x.shape[1] == self.described.inputs, (x.dtype, x.shape)
        assert residual is None or residual.dtype == dtype
        x = x.contiguous()
        out = x.new_empty(x.shape[0], self.outputs)
        self._library.project(
            ctypes.byref(self.described),
            c_int64(self._half),
            c_int64(x.shape[0]),
            c_int64(torch.get_num_threads()),
            c_void_p(x.data_ptr()),
            c_void_p(None if residual is None else residual.data_ptr()),
            c_void_p(out.data_ptr()),
        )
        return out
