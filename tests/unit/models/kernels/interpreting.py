"""Running kernels without a GPU: Triton's interpreter, with one gap filled, and mutants.

Import it in a process that was started with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import triton.language as tl
from triton import knobs
from triton.runtime import interpreter

assert knobs.runtime.interpret, "start this process with TRITON_INTERPRET=1"

TOLERANCES = {torch.float32: 3e-6, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
"""Largest ||kernel - definition|| / ||definition||: a few roundings of each type."""

_create_dot = interpreter.InterpreterBuilder.create_dot


def _widened(handle):
    if handle.dtype != tl.bfloat16:
        return handle
    wide = interpreter._convert_float(handle.data, tl.bfloat16, tl.float32, None)
    return interpreter.TensorHandle(wide.view(np.float32), tl.float32)


def _dot(builder, a, b, *others):
    """Multiply bfloat16 as numbers: the interpreter multiplies their bits (triton #11584)."""
    return _create_dot(builder, _widened(a), _widened(b), *others)


interpreter.InterpreterBuilder.create_dot = _dot


def error_of(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ||got - expected|| / ||expected||; infinity where something is undefined."""
    got, expected = got.double(), expected.double()
    assert got.shape == expected.shape
    error = ((got - expected).norm() / expected.norm()).item()
    return error if np.isfinite(error) else float("inf")


def assert_agrees(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.dtype == expected.dtype
    assert error_of(got, expected) <= TOLERANCES[expected.dtype]


def mutant(module: ModuleType, old: str, new: str, folder: Path) -> ModuleType:
    """Return a module in whose source one expression, standing there once, is another."""
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"'{old}' stands {source.count(old)} times in {module.__name__}"
    path = folder / "mutant.py"
    path.write_text(source.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("mutant", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
